"""Backend for PyTorch on the CPU, with two engines: "ipex" (Intel's extension) and "stock" (PyTorch alone)."""

import logging
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import cpuinfo
import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from bench_torch_ipex.inference import Inference
from bench_torch_ipex.model import DeiT
from bench_torch_ipex.ops import has_amx, has_onednn, pack, product, product_kernel, trains_on_onednn
from bench_torch_ipex.ranks import group
from shared_spec.backend import OutOfMemory
from shared_spec.errors import UserError
from shared_spec.ranks import Group
from shared_spec.workload import params as canonical
from shared_spec.workload.spec import Spec

Batch = tuple[Tensor, ...]
"""Images, and targets where there are any."""

MOMENTS = {"m": "exp_avg", "v": "exp_avg_sq"}


def _import_ipex() -> Any:
    """Import Intel's extension, which replaces operators of torch from then on."""
    logging.getLogger("IPEX").setLevel(logging.ERROR)  # it warns of its own deprecated options
    logging.disable(logging.WARNING)  # ... and, while it is imported, of the CUDA that a CPU does not have
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ipex = import_module("intel_extension_for_pytorch")
    except (ImportError, OSError) as error:
        raise UserError(
            f"--engine ipex: intel-extension-for-pytorch cannot be imported ({error}); "
            "run `make setup-ipex`, or choose --engine stock."
        ) from error
    finally:
        logging.disable(logging.NOTSET)
    # IPEX 2.8 registers its LayerNorm without an autograd kernel and torch warns at each backward pass. The
    # gradient is right all the same: the conformance phase checks that of every parameter.
    warnings.filterwarnings("ignore", message="aten::layer_norm: an autograd kernel was not registered")
    return ipex


@contextmanager
def _memory_errors() -> Iterator[None]:
    """Raise what PyTorch's CPU allocator reports of exhausted memory as OutOfMemory; also a decorator."""
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error):
            raise OutOfMemory(str(error).splitlines()[0]) from error
        raise


def _built_with(pattern: str) -> str | None:
    """What PyTorch says of its own build where `pattern` matches."""
    match = re.search(pattern, torch.__config__.show())
    return match.group(1) if match else None


def _parameter_groups(model: DeiT, weight_decay: float) -> list[dict[str, Any]]:
    decayed: dict[bool, list[Tensor]] = {True: [], False: []}
    for name, parameter in model.named_parameters():
        decayed[canonical.has_decay(name, tuple(parameter.shape))].append(parameter)
    return [{"params": decayed[True], "weight_decay": weight_decay}, {"params": decayed[False], "weight_decay": 0.0}]


class TorchBackend:
    """shared_spec.backend.Backend for PyTorch; PyTorch's CPU kernels run to completion, so nothing is left to wait for."""

    group: Group

    def __init__(self, spec: Spec, device: str, precision: str, engine: str) -> None:
        if device != "cpu":
            raise UserError(f"--device {device}: this package runs on cpu only.")
        self.spec, self.precision, self.engine = spec, precision, engine
        self.group = group(device)
        self._ipex = _import_ipex() if engine == "ipex" else None
        torch.set_float32_matmul_precision("highest")
        self._dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        self._matmul_operands: dict[int, tuple[Tensor, Tensor, Tensor | None]] = {}
        self._inference: Inference | None = None
        self._fresh_model()

    def describe(self) -> dict[str, Any]:
        bf16 = torch.cpu._is_avx512_bf16_supported() or has_amx()
        emulated = self.precision == "bf16" and not bf16
        return {
            "framework": "torch",
            "framework_version": torch.__version__,
            "engine": self.engine,
            "device": {"kind": "cpu", "name": cpuinfo.get_cpu_info().get("brand_raw", "unknown"), "count": 1},
            "compile_mode": "eager",
            "precision": {
                "requested": self.precision,
                "effective": "bf16, computed in fp32 registers (no bf16 instructions)" if emulated else self.precision,
            },
            "details": {
                "ipex_active": self._ipex is not None,
                "ipex_version": self._ipex.__version__ if self._ipex else None,
                "isa": torch.backends.cpu.get_cpu_capability(),
                "avx512_bf16": torch.cpu._is_avx512_bf16_supported(),
                "amx": has_amx(),
                "float32_matmul_precision": torch.get_float32_matmul_precision(),
                "onednn": torch.backends.mkldnn.is_available(),
                "onednn_version": _built_with(r"MKL-DNN v([\d.]+)"),
                "onednn_isa": self._ipex._C._get_current_onednn_isa_level() if self._ipex else None,
                "mkl_version": _built_with(r"Math Kernel Library Version ([\d.]+)"),
                "training_products": "oneDNN" if trains_on_onednn(self._dtype) else "PyTorch's choice",
                "product_kernel": product_kernel(self._dtype),
                "inference_products": "oneDNN, packed, fused" if has_onednn(self._dtype) else "PyTorch's choice",
                "threads": torch.get_num_threads(),
            },
        }

    @_memory_errors()
    def load_params(self, params: Mapping[str, np.ndarray]) -> None:
        canonical.check(self.spec, params, "load_params")
        self._fresh_model()
        self._set_params(params)

    def export_params(self) -> canonical.Params:
        return {name: p.detach().numpy().copy() for name, p in self._model.named_parameters()}

    @_memory_errors()
    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        self.load_params({name: state[f"param/{name}"] for name in canonical.shapes(self.spec)})
        for name, parameter in self._model.named_parameters():
            # zeros_like keeps the memory layout (IPEX makes the convolution channels-last): fused AdamW walks raw memory.
            slots = {
                slot: torch.zeros_like(parameter).copy_(torch.from_numpy(state[f"{key}/{name}"]))
                for key, slot in MOMENTS.items()
            }
            self._optimizer.state[parameter] = {"step": torch.tensor(float(state["step"])), **slots}

    def export_state(self) -> dict[str, np.ndarray]:
        state = {f"param/{name}": value for name, value in self.export_params().items()}
        step = 0
        for name, parameter in self._model.named_parameters():
            slots = self._optimizer.state.get(parameter, {})
            step = int(slots.get("step", 0))
            for key, slot in MOMENTS.items():
                value = slots[slot] if slots else torch.zeros_like(parameter)
                state[f"{key}/{name}"] = value.detach().numpy().copy()
        return state | {"step": np.array(step, np.int64)}

    @_memory_errors()
    def to_device(self, images: np.ndarray, targets: np.ndarray | None) -> Batch:
        return tuple(torch.from_numpy(array) for array in (images, targets) if array is not None)

    @_memory_errors()
    def train_step(self, batch: Batch, lr: float) -> Tensor:
        loss = self._backward(batch)
        norm = torch.nn.utils.clip_grad_norm_(self._model.parameters(), self.spec.optimizer.clip_norm)
        for parameters in self._optimizer.param_groups:
            parameters["lr"] = lr
        self._optimizer.step()
        self._inference = None  # of the weights before this step
        self._optimizer.zero_grad(set_to_none=True)
        return torch.stack((loss, norm))

    @_memory_errors()
    def infer(self, batch: Batch) -> Tensor:
        with torch.inference_mode():
            if has_onednn(self._dtype):
                return self._packed_for(len(batch[0]))(batch[0]).float()
            with self._autocast():
                return self._model(batch[0]).float()

    def _packed_for(self, batch_size: int) -> Inference:
        """The forward pass with the weights as they are now."""
        if self._inference is None or self._inference.batch_size != batch_size:
            self._inference = Inference(self._model, self._dtype, batch_size)
        return self._inference

    @_memory_errors()
    def gradients(self, batch: Batch) -> dict[str, np.ndarray]:
        self._loss(self._model, batch).backward()
        gradients = {name: p.grad.numpy().copy() for name, p in self._model.named_parameters() if p.grad is not None}
        self._optimizer.zero_grad(set_to_none=True)
        return gradients

    def communication(self) -> dict[str, float] | None:
        if not isinstance(self._trained, DistributedDataParallel):
            return None
        logged = self._trained._get_ddp_logging_data()
        names = {"seconds": "avg_backward_comm_time", "overlapped_seconds": "avg_backward_compute_comm_overlap_time"}
        return {name: 1e-9 * int(logged.get(key, 0)) for name, key in names.items()}

    @_memory_errors()
    def preprocess(self, batch: Batch) -> Tensor:
        with torch.inference_mode():
            return self._model.preprocess(batch[0]).permute(0, 2, 3, 1)

    def synchronize(self, *handles: Tensor) -> None:
        """Nothing to wait for: eager CPU operators return when they are done."""

    @_memory_errors()
    def to_numpy(self, handle: Tensor) -> np.ndarray:
        return handle.float().numpy()

    @_memory_errors()
    def matmul(self, n: int) -> Tensor:
        a, b, packed = self._operands(n)
        return a @ b.t() if packed is None else product(a, packed)

    def matmul_operands(self, n: int) -> tuple[np.ndarray, np.ndarray]:
        a, b, _ = self._operands(n)
        return a.float().numpy(), b.float().numpy().T

    def _operands(self, n: int) -> tuple[Tensor, Tensor, Tensor | None]:
        """The left operand, the transpose of the right one, and that packed where oneDNN is the faster library.

        Packed as the layers of inference are: what they reach, the peak has to reach.
        """
        if n not in self._matmul_operands:
            generator = torch.Generator().manual_seed(n)
            a, b = (torch.randn(n, n, generator=generator).to(self._dtype) for _ in range(2))
            packed = pack(b, n) if trains_on_onednn(self._dtype) else None
            self._matmul_operands = {n: (a, b, packed)}
        return self._matmul_operands[n]

    def reset_peak_memory(self) -> None:
        """The device is the host: the harness reads the process's high-water mark."""

    def memory(self) -> dict[str, int | None]:
        return {}

    def _fresh_model(self) -> None:
        o = self.spec.optimizer
        self._model = DeiT(self.spec).train()
        self._inference = None
        self._optimizer = torch.optim.AdamW(
            _parameter_groups(self._model, o.weight_decay), betas=(o.beta1, o.beta2), eps=o.eps, fused=True
        )
        if self._ipex is not None:
            # Weights stay plain float32: packed ones are hidden from the optimiser, and inference.py packs its own.
            self._model, self._optimizer = self._ipex.optimize(
                self._model, optimizer=self._optimizer, dtype=torch.float32, inplace=True, weights_prepack=False
            )
        self._trained = self._averaged_over_ranks() if self.group.size > 1 else self._model

    def _averaged_over_ranks(self) -> DistributedDataParallel:
        """The model whose backward pass averages gradients over the ranks, bucket by bucket as they are ready."""
        # All ranks load the same values, so none have to be sent at the start.
        shared = DistributedDataParallel(self._model, gradient_as_bucket_view=True, static_graph=True, init_sync=False)
        shared._set_ddp_runtime_logging_sample_rate(1)
        return shared

    def _set_params(self, params: Mapping[str, np.ndarray]) -> None:
        with torch.no_grad():
            for name, parameter in self._model.named_parameters():
                parameter.copy_(torch.from_numpy(np.ascontiguousarray(params[name])))

    def _autocast(self) -> torch.autocast:
        return torch.autocast("cpu", torch.bfloat16, enabled=self.precision == "bf16")

    def _loss(self, model: torch.nn.Module, batch: Batch) -> Tensor:
        images, targets = batch
        with self._autocast():
            logits = model(images)
        return F.cross_entropy(logits.float(), targets)

    def _backward(self, batch: Batch) -> Tensor:
        """Gradients of the mean loss over the global batch, which is returned."""
        loss = self._loss(self._trained, batch)
        mean = loss.detach()
        if self.group.size > 1:
            mean = mean / self.group.size
            reduction = dist.all_reduce(mean, async_op=True)  # done long before the backward pass is
            loss.backward()
            reduction.wait()
        else:
            loss.backward()
        return mean
