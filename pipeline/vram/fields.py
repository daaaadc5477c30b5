"""The fields of an estimate as a plain record: what the arithmetic reads, without the library that checks requests."""

from typing import Any, Literal, NamedTuple

from pipeline.vram.plan import Checkpointing, Optimizer, Parallelism
from pipeline.vram.recipe import Loss, Stack
from pipeline.vram.weight_bytes import Dtype, Quantization

Task = Literal["train", "inference"]
Method = Literal["full", "lora", "qlora"]
AttentionChoice = Literal["eager", "sdpa", "flash"]
Objective = Literal["sft", "dpo"]
Cache = Literal["16bit", "q8_0", "fp8", "q4_0"]


class Fields(NamedTuple):
    """See ``VramEstimateRequest``, which has the same fields with their documentation and limits."""

    model: str | None = None
    config: dict[str, Any] | None = None
    task: Task = "train"
    method: Method = "lora"
    quantization: Quantization | None = None
    rank: int | None = None
    target_modules: Any = None
    max_length: int = 2048
    micro_batch_size: int = 1
    gradient_accumulation_steps: int = 1
    gradient_checkpointing: Checkpointing | None = None
    optimizer: Optimizer | None = None
    dtype: Dtype | None = None
    adapter_dtype: Dtype | None = None
    attention: AttentionChoice | None = None
    loss: Loss | None = None
    stack: Stack = "trainer"
    num_gpus: int = 1
    parallelism: Parallelism | None = None
    gpu: str | None = None
    lora_dropout: float | None = None
    kbit_upcast: bool | None = None
    packing: bool = False
    objective: Objective = "sft"
    kv_cache: Cache = "16bit"
    gguf: Any = None
    out: str | None = None
