"""The catalogue: every operation, in reading order.

Entries name their module as text so that ``llmops --help`` imports none of them; a test loads each one and holds
the summary against the function's docstring.
"""

from typing import TYPE_CHECKING, Any

from pipeline.catalogue import CatalogueEntry

if TYPE_CHECKING:
    from pipeline.core.operation import Operation


OPERATIONS: tuple[CatalogueEntry, ...] = (
    CatalogueEntry(
        "quickstart.run",
        "pipeline.quickstart.run:QUICKSTART_RUN",
        "Build, prove, measure and try a tool-calling model, from nothing to a report.",
    ),
    CatalogueEntry(
        "vram.probe",
        "pipeline.vram.probe:VRAM_PROBE",
        "Report what this machine has: GPUs, memory, disk, processor, programs and libraries.",
    ),
    CatalogueEntry(
        "vram.parameters",
        "pipeline.vram.parameters:VRAM_PARAMETERS",
        "Count the parameters of a model part by part, and those of a LoRA adapter on it.",
    ),
    CatalogueEntry(
        "vram.estimate",
        "pipeline.vram.estimate:VRAM_ESTIMATE",
        "Estimate the memory of training or serving a model, with a range, and what to change until it fits.",
        quick="pipeline.vram.quick:run_estimate",
    ),
    CatalogueEntry(
        "vram.trace",
        "pipeline.vram.trace_training:VRAM_TRACE",
        "Count the memory of a training step by running the real modules on fake tensors.",
    ),
    CatalogueEntry(
        "vram.quantizations",
        "pipeline.vram.quantizations:VRAM_QUANTIZATIONS",
        "List the exact size of a model in every format, and what a GPU can load and compute in.",
    ),
    CatalogueEntry(
        "decide.recommend",
        "pipeline.decide.recommend:DECIDE_RECOMMEND",
        "Recommend prompting, retrieval, fine-tuning or both: scored reasons, money, and the facts that would turn it.",
    ),
    CatalogueEntry(
        "economics.compare",
        "pipeline.economics.compare:ECONOMICS_COMPARE",
        "Compare the cost of an API with a model of one's own: break-even, payback, sensitivity.",
    ),
    CatalogueEntry(
        "models.pull",
        "pipeline.models.pull:MODELS_PULL",
        "Put a starter model or a hub model into models/, verified.",
    ),
    CatalogueEntry(
        "synth.generate",
        "pipeline.synth.generate:SYNTH_GENERATE",
        "Make training, validation and test conversations with exact ground truth.",
    ),
    CatalogueEntry(
        "synth.brief",
        "pipeline.synth.handout:SYNTH_BRIEF",
        "Hand out conversations with their calls decided, for the calling agent to word.",
    ),
    CatalogueEntry(
        "synth.submit",
        "pipeline.synth.handout:SYNTH_SUBMIT",
        "Execute and check wordings of handed out conversations, and say row by row what to repair.",
    ),
    CatalogueEntry(
        "synth.status",
        "pipeline.synth.handout:SYNTH_STATUS",
        "Show how far a piece of work has filled the coverage matrix.",
    ),
    CatalogueEntry(
        "synth.personas",
        "pipeline.synth.persona_rows:SYNTH_PERSONAS",
        "Put executed conversations into the voices of the personas, calls and facts unchanged.",
    ),
    CatalogueEntry(
        "synth.play",
        "pipeline.synth.handwritten:SYNTH_PLAY",
        "Execute hand-written conversations and write them as rows.",
    ),
    CatalogueEntry(
        "synth.replay",
        "pipeline.synth.replay:SYNTH_REPLAY",
        "Execute the tool calls of a data file again and report rows whose results differ.",
    ),
    CatalogueEntry(
        "synth.check",
        "pipeline.synth.check:SYNTH_CHECK",
        "Check every row of a data file against all gates and report each fault by line and kind.",
    ),
    CatalogueEntry(
        "synth.estimate",
        "pipeline.synth.estimate:SYNTH_ESTIMATE",
        "Estimate what a data set worded and judged by a paid model costs, from the requests that would be sent.",
    ),
    CatalogueEntry(
        "synth.judge",
        "pipeline.synth.judge:SYNTH_JUDGE",
        "Grade rows by anchored criteria and items, or compare two wordings in both orders, with a model that sees no origin.",
    ),
    CatalogueEntry(
        "synth.calibrate",
        "pipeline.synth.calibrate:SYNTH_CALIBRATE",
        "Compare a judge's decisions with human labels: kappa with an interval; below 0.6 the judge is unusable.",
    ),
    CatalogueEntry(
        "synth.resolve",
        "pipeline.synth.resolve:SYNTH_RESOLVE",
        "Solve each turn again several times and keep the rows whose calls the majority makes too.",
    ),
    CatalogueEntry(
        "data.inspect",
        "pipeline.data.inspect_file:DATA_INSPECT",
        "Look into a conversation file: formats, turns, roles, tools, lengths, issues by kind and a few sample rows.",
    ),
    CatalogueEntry(
        "data.validate",
        "pipeline.data.validate:DATA_VALIDATE",
        "Check every row of a conversation file and explain each broken one by line, place and remedy.",
    ),
    CatalogueEntry(
        "data.preview",
        "pipeline.data.preview:DATA_PREVIEW",
        "Show the exact training text of rows with the trained tokens marked, and what the chat template loses.",
    ),
    CatalogueEntry(
        "data.convert",
        "pipeline.data.convert:DATA_CONVERT",
        "Convert rows between OpenAI messages, ShareGPT and Alpaca without loss.",
    ),
    CatalogueEntry(
        "data.pii",
        "pipeline.data.pii:DATA_PII",
        "Report personal data in every text of a file, or replace it by consistent surrogates.",
    ),
    CatalogueEntry(
        "data.clean",
        "pipeline.data.clean:DATA_CLEAN",
        "Drop repeated and unusable rows of a data file, tidy the rest, and list every drop with its reason.",
    ),
    CatalogueEntry(
        "data.clean_shards",
        "pipeline.data.clean_shards:DATA_CLEAN_SHARDS",
        "Clean all data files of a folder as one data set, in several processes, with the rules of data clean.",
    ),
    CatalogueEntry(
        "data.split",
        "pipeline.data.split:DATA_SPLIT",
        "Divide a data file into train, validation and test so that nothing similar is on two sides.",
    ),
    CatalogueEntry(
        "data.decontaminate",
        "pipeline.data.decontaminate:DATA_DECONTAMINATE",
        "Find what a training file shares with a test file: equal rows, near-duplicates, 8-grams, copied answers.",
    ),
    CatalogueEntry(
        "data.report",
        "pipeline.data.report:DATA_REPORT",
        "Write a data report: accuracy, consistency, coverage, diversity, leakage, personal data, tokens and cost.",
    ),
    CatalogueEntry(
        "train.run", "pipeline.train.run:TRAIN_RUN", "Fine-tune a base model on tool-calling conversations."
    ),
    CatalogueEntry(
        "train.presets",
        "pipeline.train.presets:TRAIN_PRESETS",
        "List the training presets with the reason for each value.",
    ),
    CatalogueEntry(
        "train.curve",
        "pipeline.train.watch:TRAIN_CURVE",
        "Draw the loss curve of a training run as text, PNG and HTML, also while it runs.",
    ),
    CatalogueEntry(
        "train.watch",
        "pipeline.train.watch:TRAIN_WATCH",
        "Show the loss curve of a training run, live, until the run ends.",
    ),
    CatalogueEntry(
        "train.diagnose",
        "pipeline.train.diagnose:TRAIN_DIAGNOSE",
        "Say what a training curve shows: healthy, under-fit, over-fit, unstable, nothing learned or a data problem.",
    ),
    CatalogueEntry(
        "train.compare",
        "pipeline.train.compare:TRAIN_COMPARE",
        "Compare training runs: differing recipe values, losses, time and verdicts, as table and picture.",
    ),
    CatalogueEntry(
        "train.learning_rate",
        "pipeline.train.learning_rate:TRAIN_LEARNING_RATE",
        "Find a learning rate by a range test: one short run whose rate rises until the loss turns.",
    ),
    CatalogueEntry(
        "train.tune",
        "pipeline.train.tune:TRAIN_TUNE",
        "Search recipe values by training runs, pruning hopeless ones; resumes where it stopped.",
    ),
    CatalogueEntry(
        "train.notebook",
        "pipeline.train.notebook:TRAIN_NOTEBOOK",
        "Write a Colab notebook that trains a recipe on a T4, resumes after a disconnect and saves to Google Drive.",
    ),
    CatalogueEntry(
        "train.submit",
        "pipeline.train.submit:TRAIN_SUBMIT",
        "Train on a Ray cluster from this machine; logs, metrics and artifacts come back.",
    ),
    CatalogueEntry(
        "train.cluster",
        "pipeline.train.cluster:TRAIN_CLUSTER",
        "Write the FSDP configuration of a model for many GPUs, check it, and count what each GPU would hold.",
    ),
    CatalogueEntry(
        "export.run",
        "pipeline.export.run:EXPORT_RUN",
        "Export a training run as adapter, merged model and GGUF files, and prove that they are equal.",
    ),
    CatalogueEntry(
        "export.verify",
        "pipeline.export.verify:EXPORT_VERIFY",
        "Prove that GGUF files say what the merged model says, and can be served.",
    ),
    CatalogueEntry(
        "export.convert",
        "pipeline.export.convert:EXPORT_CONVERT",
        "Convert a model folder to one GGUF file with its chat template inside; nothing is compared.",
    ),
    CatalogueEntry(
        "export.push",
        "pipeline.export.push:EXPORT_PUSH",
        "Upload an export whose gate passed to a model hub; without --no-dry-run it only lists the files.",
    ),
    CatalogueEntry(
        "evals.run",
        "pipeline.evals.run:EVALS_RUN",
        "Evaluate a served model on conversations with exact ground truth, turn by turn.",
    ),
    CatalogueEntry(
        "evals.robustness",
        "pipeline.evals.robustness:EVALS_ROBUSTNESS",
        "Ask cases in other ways, such as renamed or more tools, and report the worst slice and its loss.",
    ),
    CatalogueEntry(
        "evals.selftest",
        "pipeline.evals.selftest:EVALS_SELFTEST",
        "Try a case file on right and wrong answers made from its own references, and lint it.",
    ),
    CatalogueEntry(
        "evals.persona",
        "pipeline.evals.persona:EVALS_PERSONA",
        "Judge replies of one or more personas: traits, rules, voice, bleed after a switch, and wins over another system.",
    ),
    CatalogueEntry(
        "evals.sheet",
        "pipeline.evals.human:EVALS_SHEET",
        "Make a blind sheet for two raters: sides drawn per row, guidelines beside it, the key apart.",
    ),
    CatalogueEntry(
        "evals.agree",
        "pipeline.evals.human:EVALS_AGREE",
        "Merge the sheets of two raters: Cohen's kappa, Gwet's AC1, and which system won.",
    ),
    CatalogueEntry(
        "evals.import",
        "pipeline.evals.import_cases:EVALS_IMPORT",
        "Turn rows, BFCL files or an MCP tool list into evaluation cases.",
    ),
    CatalogueEntry(
        "evals.score",
        "pipeline.evals.score:EVALS_SCORE",
        "Score stored tool calls against cases, with intervals, floors and gates.",
    ),
    CatalogueEntry(
        "evals.compare",
        "pipeline.evals.compare:EVALS_COMPARE",
        "Compare two evaluations of the same cases: paired test, difference with interval, regressions.",
    ),
    CatalogueEntry(
        "deploy.serve",
        "pipeline.deploy.serve:DEPLOY_SERVE",
        "Serve a model on an OpenAI-compatible URL until terminated, or hand it to Ollama.",
    ),
    CatalogueEntry(
        "deploy.list",
        "pipeline.deploy.watch:DEPLOY_LIST",
        "List the servers of this workspace, newest first.",
    ),
    CatalogueEntry(
        "deploy.status", "pipeline.deploy.watch:DEPLOY_STATUS", "Ask a server whether it answers."
    ),
    CatalogueEntry(
        "deploy.cluster-config",
        "pipeline.deploy.cluster:DEPLOY_CLUSTER_CONFIG",
        "Write compose and nginx files that serve an export by vLLM or llama.cpp behind a load balancer.",
    ),
    CatalogueEntry(
        "deploy.logs",
        "pipeline.deploy.logs:DEPLOY_LOGS",
        "Show the last lines of a server's log and the figures of its requests.",
    ),
    CatalogueEntry(
        "deploy.load",
        "pipeline.deploy.load:DEPLOY_LOAD",
        "Ask a server many things at once and check that no answer is lost or mixed up.",
    ),
    CatalogueEntry("deploy.stop", "pipeline.deploy.watch:DEPLOY_STOP", "Stop a server of this workspace."),
    CatalogueEntry(
        "agent.run",
        "pipeline.agent.run:AGENT_RUN",
        "Send one message to the task agent and return its tool calls and reply.",
    ),
    CatalogueEntry(
        "agent.scenarios",
        "pipeline.agent.scenarios:AGENT_SCENARIOS",
        "Put the agent into situations that go wrong, and judge calls, tasks and replies.",
    ),
    CatalogueEntry(
        "agent.chat",
        "pipeline.agent.chat:AGENT_CHAT",
        "Talk to the task agent, line by line, until /quit or the end of input.",
    ),
    CatalogueEntry(
        "agent.web",
        "pipeline.agent.web:AGENT_WEB",
        "Show the task agent on a local page, with its tool calls and the tasks live, until Ctrl-C.",
    ),
    CatalogueEntry(
        "lesson.list",
        "pipeline.lessons.show:LESSON_LIST",
        "List the lessons of the course with their prerequisites.",
    ),
    CatalogueEntry(
        "lesson.show",
        "pipeline.lessons.show:LESSON_SHOW",
        "Show a lesson: objective, concepts, operations, roles, deliverable and how it is checked.",
    ),
    CatalogueEntry(
        "lesson.check",
        "pipeline.lessons.check:LESSON_CHECK",
        "Check what a learner made for a lesson and remember the outcome.",
    ),
    CatalogueEntry(
        "lesson.progress",
        "pipeline.lessons.progress:LESSON_PROGRESS",
        "Show which lessons are passed and which can come next.",
    ),
    CatalogueEntry(
        "doctor.run",
        "pipeline.doctor.run:DOCTOR_RUN",
        "Report versions, known-bad pairs and the command that mends each.",
    ),
    CatalogueEntry("jobs.list", "pipeline.jobs.watch:JOBS_LIST", "List runs and jobs, newest first."),
    CatalogueEntry(
        "jobs.status", "pipeline.jobs.watch:JOBS_STATUS", "Report the state, progress and result of a run."
    ),
    CatalogueEntry("jobs.logs", "pipeline.jobs.watch:JOBS_LOGS", "Show the last lines of a run's log."),
    CatalogueEntry(
        "jobs.cancel", "pipeline.jobs.control:JOBS_CANCEL", "Stop a running job and all its child processes."
    ),
    CatalogueEntry(
        "jobs.resume",
        "pipeline.jobs.control:JOBS_RESUME",
        "Continue an interrupted, failed or cancelled run where it stopped.",
    ),
)


def find_operation(name: str) -> "Operation[Any, Any]":
    """Return the operation of that name.

    Raises:
        KeyError: If there is none.
    """
    for entry in OPERATIONS:
        if entry.name == name:
            return entry.load()
    raise KeyError(name)
