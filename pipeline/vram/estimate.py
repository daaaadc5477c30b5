"""Operation ``vram.estimate``: will it fit? Bytes of training or serving a model, moment by moment, with a range.

Knows the stacks of :data:`pipeline.vram.plan.STACKS` and one device of a run; it loads no weights and asks no GPU.
"""

from typing import Any

from pydantic import Field

from pipeline.core.gguf_types import FileType
from pipeline.core.operation import Operation, Part, Request, Result
from pipeline.core.paths import WorkspacePath, WorkspaceRef
from pipeline.vram.estimator import estimate
from pipeline.vram.fields import AttentionChoice, Cache, Fields, Method, Objective, Task
from pipeline.vram.plan import Checkpointing, Optimizer, Parallelism
from pipeline.vram.recipe import Loss, Stack
from pipeline.vram.weight_bytes import Dtype, Quantization

_MAX_TOKENS = 10_000_000
_MAX_COUNT = 1_000_000


class VramEstimateRequest(Request):
    """What to train or serve, and with what."""

    model: WorkspaceRef | None = Field(default=None, min_length=1)
    """Registry name such as meta-llama/Llama-3.1-8B, a config.json, or the folder that holds one."""
    config: dict[str, Any] | None = None
    """The model's configuration itself, in place of `model`."""
    task: Task = "train"
    """Train, or serve."""
    method: Method = "lora"
    """All weights, LoRA matrices, or LoRA on a quantised base."""
    quantization: Quantization | None = None
    """Of the base's linear modules; QLoRA means nf4_dq unless told otherwise."""
    rank: int | None = Field(default=None, ge=1, le=_MAX_COUNT)
    """LoRA rank; none: 16."""
    target_modules: str | list[str] | None = None
    """Modules that get an adapter: names, or all-linear (all but the head), which is what none means."""
    max_length: int = Field(default=2048, ge=1, le=_MAX_TOKENS)
    """Tokens of a training row, or of the context when serving."""
    micro_batch_size: int = Field(default=1, ge=1, le=_MAX_COUNT)
    """Rows a device takes at once; sequences served at once."""
    gradient_accumulation_steps: int = Field(default=1, ge=1, le=_MAX_COUNT)
    """Micro batches before the optimizer steps."""
    gradient_checkpointing: Checkpointing | None = None
    """Keep only the inputs of layers, on the device or in main memory; none: what the stack does."""
    optimizer: Optimizer | None = None
    """Optimizer; none: what the stack uses."""
    dtype: Dtype | None = None
    """Type of the weights; none: bf16, or fp16 on a GPU without bf16."""
    adapter_dtype: Dtype | None = None
    """Type of the LoRA matrices; none: what the stack uses (fp32 with PEFT)."""
    attention: AttentionChoice | None = None
    """Attention kernel; none: what the GPU and the model allow."""
    loss: Loss | None = None
    """All logits at once, in chunks, or fused with the head; none: what the stack does."""
    stack: Stack = "trainer"
    """What trains: a loop of one's own over PEFT, Hugging Face's or TRL's trainer, Unsloth, LitGPT, torchtune."""
    num_gpus: int = Field(default=1, ge=1, le=100_000)
    """Devices; the numbers are for one of them."""
    parallelism: Parallelism | None = None
    """What the devices share; none: nothing on one, ddp on several."""
    gpu: str | None = Field(default=None, min_length=1)
    """GPU by registry name, such as T4: adds what fits on it."""
    lora_dropout: float | None = Field(default=None, ge=0, lt=1)
    """LoRA dropout; none: what the stack uses."""
    kbit_upcast: bool | None = None
    """Embedding, head and norms of a quantised base in fp32; none: what the stack does."""
    packing: bool = False
    """Rows are filled up with others to max_length."""
    objective: Objective = "sft"
    """Supervised fine-tuning, or DPO, which takes chosen and rejected answers at once."""
    kv_cache: Cache = "16bit"
    """Type of cached keys and values when serving."""
    gguf: FileType | None = None
    """Serve this GGUF file type with llama.cpp."""
    out: WorkspacePath | None = None
    """Folder in which to write compute_plan.json."""


class ByteRange(Part):
    """A number of bytes and how far off it may be."""

    low: int
    """Lower bound."""
    expected: int
    """Best guess."""
    high: int
    """Upper bound."""


class Advice(Part):
    """One change."""

    change: str
    """What to change, on top of the changes before it."""
    expected_bytes: int
    """What the process then takes, estimated anew."""


class VramEstimateResult(Result):
    """Bytes on one device."""

    model: str
    """The model."""
    allocated_bytes: ByteRange
    """Peak of what tensors take (torch.cuda.max_memory_allocated)."""
    reserved_bytes: ByteRange
    """Peak of what the allocator holds (torch.cuda.max_memory_reserved)."""
    process_bytes: ByteRange
    """What nvidia-smi shows: reserved, with the CUDA context and communication."""
    components: dict[str, int]
    """Parts of the worst moment, adding up to the expected allocated bytes."""
    phases: dict[str, int]
    """Allocated bytes at each moment."""
    peak_phase: str
    """The worst moment."""
    num_parameters: int
    """Parameters of the model."""
    num_trainable_parameters: int
    """Parameters that train."""
    usable_bytes: int | None
    """What the GPU has for it."""
    fits: bool | None
    """It runs on the GPU, upper bound included; none: no GPU was given."""
    max_micro_batch_size: int | None
    """Largest micro batch that fits, all else unchanged; 0: none does."""
    max_length_that_fits: int | None
    """Longest rows that fit, all else unchanged; 0: none do."""
    smallest_gpu: str | None
    """Smallest known GPU on which it fits."""
    advice: list[Advice]
    """Changes to make, in order, until it fits; without a GPU all that help."""
    merge_ram_bytes: int
    """Main memory to merge an adapter into the base in 16 bits."""
    export_disk_bytes: int
    """Disk for the merged model, its 16-bit GGUF and a 4-bit one."""
    assumptions: list[str]
    """What was taken for granted."""

    def is_negative(self) -> bool:
        """True when it does not fit."""
        return self.fits is False


def estimate_vram(request: VramEstimateRequest) -> VramEstimateResult:
    """Estimate the memory of training or serving a model, with a range, and what to change until it fits.

    Raises:
        InvalidInputError: If the model or GPU is unknown, or fields contradict each other.
    """
    values = request.model_dump()
    result = VramEstimateResult.model_validate(estimate(Fields(**values)))
    if request.out is not None:
        from pipeline.core.files import write_json
        from pipeline.core.paths import resolve_path

        plan = {"request": values, "estimate": result.model_dump()}
        write_json(resolve_path(request.out) / "compute_plan.json", plan)
    return result


VRAM_ESTIMATE = Operation(
    name="vram.estimate",
    request=VramEstimateRequest,
    result=VramEstimateResult,
    run=estimate_vram,
    positional=("model",),
)
