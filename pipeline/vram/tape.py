"""Memory of a forward and backward pass, by following every tensor from its creation to its last use.

A layer is written as a short tape of operations. Each one says what it puts out, what it keeps for the backward pass
and what it needs only while it runs; walking the tape forwards and then backwards gives the bytes that are alive at
every moment, as PyTorch's autograd engine would hold them: gradients meet in place, saved tensors go when their node
has run. Sizes are plain integers; nothing is computed.
"""

from typing import NamedTuple


class Storage:
    """A block of memory and how many things hold it."""

    __slots__ = ("holders", "size")

    def __init__(self, size: int) -> None:
        self.size = size
        self.holders = 1


class Value:
    """A tensor in the forward pass: its storage (views share one) and whether gradients flow to it."""

    __slots__ = ("grad", "needs_grad", "size", "storage")

    def __init__(self, storage: Storage, size: int, *, needs_grad: bool) -> None:
        self.storage = storage
        self.size = size
        self.needs_grad = needs_grad
        self.grad: Storage | None = None


class Node(NamedTuple):
    """What one operation does in the backward pass."""

    inputs: tuple[Value, ...]
    output: Value
    saved: tuple[Storage, ...]
    workspace: int
    """Bytes needed while it runs, beside the gradients it makes."""
    passes_gradient: bool
    """The gradient goes on unchanged (addition, view): no new memory."""
    parameter_gradient: int
    """Bytes of gradients that stay."""


class Tape:
    """Records operations and counts the bytes that are alive."""

    def __init__(self) -> None:
        self.live = 0
        self.peak = 0
        self.kept_gradients = 0
        self._held: dict[int, Storage] = {}
        self._nodes: list[Node] = []

    def new(self, size: int, *, needs_grad: bool = True) -> Value:
        """Allocate a tensor."""
        self._grow(size)
        return Value(Storage(size), size, needs_grad=needs_grad)

    def release(self, *values: Value) -> None:
        """End the reference that the Python code holds."""
        for value in values:
            self._let_go(value.storage)

    def view(self, value: Value, size: int = 0) -> Value:
        """Return another tensor on the same memory; its gradient is a tensor of its own of that size."""
        value.storage.holders += 1
        out = Value(value.storage, size or value.size, needs_grad=value.needs_grad)
        if out.needs_grad:
            self._record((value,), out, (), passes=not size)
        return out

    def apply(
        self,
        inputs: tuple[Value, ...],
        out_size: int,
        *,
        saves: tuple[Value, ...] = (),
        saves_new: int = 0,
        workspace: int = 0,
        backward_workspace: int = 0,
        parameter_gradient: int = 0,
    ) -> Value:
        """Run an operation whose inputs get gradients of their own size.

        Args:
            inputs: Tensors that gradients flow back to, if they need any.
            out_size: Bytes of the result.
            saves: Inputs kept for the backward pass.
            saves_new: Bytes made here and kept for the backward pass.
            workspace: Bytes needed only while it runs.
            backward_workspace: The same in the backward pass, beside the gradients.
            parameter_gradient: Bytes of gradients of parameters, which stay.
        """
        needs_grad = bool(parameter_gradient) or any(value.needs_grad for value in inputs)
        if not needs_grad:  # nothing will be asked of it in the backward pass
            self.peak = max(self.peak, self.live + out_size + workspace + saves_new)
            return self.new(out_size, needs_grad=False)
        kept = [value.storage for value in saves]
        for storage in kept:
            storage.holders += 1
        if saves_new:
            self._grow(saves_new)
            kept.append(Storage(saves_new))
        self.peak = max(self.peak, self.live + out_size + workspace)
        out = self.new(out_size)
        self._record(inputs, out, tuple(kept), backward_workspace, parameter_gradient=parameter_gradient)
        return out

    @property
    def held_by_graph(self) -> int:
        """Bytes that stay until the whole graph goes, because an operation holds them outside the saved tensors."""
        return sum(storage.size for storage in self._held.values())

    def hold(self, value: Value) -> None:
        """Note that an operation holds a tensor for as long as the graph lives."""
        self._held[id(value.storage)] = value.storage

    def keep_output(self, value: Value) -> None:
        """Keep the result of the last operation for its own backward pass."""
        if not value.needs_grad:
            return
        value.storage.holders += 1
        node = self._nodes.pop()
        self._nodes.append(node._replace(saved=(*node.saved, value.storage)))

    def add(self, left: Value, right: Value) -> Value:
        """Add two tensors: the gradient goes to both unchanged."""
        out = self.new(max(left.size, right.size), needs_grad=left.needs_grad or right.needs_grad)
        if out.needs_grad:
            self._record((left, right), out, (), passes=True)
        return out

    def backward(self, output: Value, gradient_size: int) -> None:
        """Walk back from an output whose gradient has that size; what the first inputs get stays alive."""
        if output.grad is None:
            self._grow(gradient_size)
            output.grad = Storage(gradient_size)
        while self._nodes:
            self._run(self._nodes.pop())

    def _record(
        self,
        inputs: tuple[Value, ...],
        output: Value,
        saved: tuple[Storage, ...],
        workspace: int = 0,
        *,
        passes: bool = False,
        parameter_gradient: int = 0,
    ) -> None:
        self._nodes.append(Node(inputs, output, saved, workspace, passes, parameter_gradient))

    def _run(self, node: Node) -> None:
        gradient = node.output.grad
        if gradient is None:
            return
        self.peak = max(self.peak, self.live + node.workspace)
        if node.parameter_gradient:
            self.kept_gradients += node.parameter_gradient
            self._grow(node.parameter_gradient)
        for value in node.inputs:
            if value.needs_grad:
                self._accumulate(
                    value, gradient if node.passes_gradient and gradient.size == value.size else None
                )
        self._let_go(gradient)
        node.output.grad = None
        for storage in node.saved:
            self._let_go(storage)

    def _accumulate(self, value: Value, shared: Storage | None) -> None:
        if shared is None:
            self._grow(value.size)
            shared = Storage(value.size)
        else:
            shared.holders += 1
        if value.grad is None:
            value.grad = shared
        elif value.grad.holders == 1:  # added in place
            self._let_go(shared)
        else:
            self._grow(value.size)
            self._let_go(shared)
            self._let_go(value.grad)
            value.grad = Storage(value.size)

    def _grow(self, size: int) -> None:
        self.live += size
        if self.live > self.peak:
            self.peak = self.live

    def _let_go(self, storage: Storage) -> None:
        storage.holders -= 1
        if storage.holders == 0:
            self.live -= storage.size
