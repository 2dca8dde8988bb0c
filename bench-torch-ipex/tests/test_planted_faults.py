"""Faults planted into this platform's own operators, model and backend: each fails the check meant for it."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bench_torch_ipex import backend as module
from bench_torch_ipex import inference, model, ops
from bench_torch_ipex.backend import Batch, TorchBackend
from bench_torch_ipex.inference import Inference
from shared_spec.dev.planted_faults import Fault, Patch, cached_batch_1, cases, late_rate, round_to
from shared_spec.dev.testing import check_named
from shared_spec.workload.spec import Spec


def layer_norm_in_bf16(patch: Patch) -> None:
    def forward(self: ops.LayerNorm, x: Tensor) -> Tensor:
        z = x.bfloat16()
        centred = z - z.mean(-1, keepdim=True)
        normal = centred * torch.rsqrt((centred * centred).mean(-1, keepdim=True) + self.eps)
        return (normal.to(x.dtype) * self.weight + self.bias).to(x.dtype)

    patch.setattr(ops.LayerNorm, "forward", forward)


def softmax_in_bf16(patch: Patch) -> None:
    def attention(qkv: Tensor) -> Tensor:
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        scores = q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5
        exponentials = (scores - scores.amax(-1, keepdim=True)).exp()
        sums = exponentials.sum(-1, keepdim=True).bfloat16().to(scores.dtype)
        return ((exponentials / sums) @ v).transpose(1, 2)

    patch.setattr(model, "attention", attention)


def tf32_in_attention(patch: Patch) -> None:
    for user in (model, inference):
        patch.setattr(user, "attention", lambda qkv: ops.attention(round_to(qkv, 11)))


def tanh_gelu(patch: Patch) -> None:
    patch.setattr(model, "gelu", lambda x: F.gelu(x, approximate="tanh"))


def loss_in_bf16(patch: Patch) -> None:
    entropy = F.cross_entropy
    patch.setattr(module.F, "cross_entropy", lambda x, t: entropy(x.bfloat16(), t.bfloat16()).float())


def resize_in_step(change: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Patch], None]:
    """Another resize where gradients are taken, and the specified one in `preprocess` and `infer`."""

    def plant(patch: Patch) -> None:
        whole = model.Preprocess.forward

        def forward(self: model.Preprocess, images: Tensor) -> Tensor:
            if not torch.is_grad_enabled():
                return whole(self, images)
            x = (images.permute(0, 3, 1, 2).to(torch.float32) / 255 - self._mean) / self._std
            return change(x, self._upscale)

        patch.setattr(model.Preprocess, "forward", forward)

    return plant


def in_bf16(x: Tensor, upscale: Tensor) -> Tensor:
    """As autocast would have it, were it not switched off there."""
    with torch.autocast("cpu", torch.bfloat16):
        return (upscale @ x @ upscale.T).float()


def nearest(x: Tensor, upscale: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=len(upscale) // x.shape[-1], mode="nearest")


def moments_in_bf16(patch: Patch) -> None:
    step = TorchBackend.train_step

    def rounding(self: TorchBackend, batch: Batch, lr: float) -> Tensor:
        result = step(self, batch, lr)
        for slots in self._optimizer.state.values():
            for slot in module.MOMENTS.values():
                slots[slot].copy_(slots[slot].bfloat16())
        return result

    patch.setattr(TorchBackend, "train_step", rounding)


def packed_and_kept(patch: Patch) -> None:
    step = TorchBackend.train_step

    def keeping(self: TorchBackend, batch: Batch, lr: float) -> Tensor:
        packed = self._inference
        result = step(self, batch, lr)
        self._inference = packed
        return result

    patch.setattr(TorchBackend, "train_step", keeping)


def packed_for_each_size_once(patch: Patch) -> None:
    packed: dict[int, Inference] = {}

    def kept(self: TorchBackend, size: int) -> Inference:
        return packed.setdefault(size, Inference(self._model, self._dtype, size))

    patch.setattr(TorchBackend, "_packed_for", kept)
    pack = inference.pack
    patch.setattr(inference, "pack", lambda weight, rows: pack(weight.clone(), rows))


def six_bit_operands(patch: Patch) -> None:
    pack = inference.pack
    patch.setattr(inference, "pack", lambda weight, rows: pack(round_to(weight.float(), 6).to(weight.dtype), rows))


def clipped_each(patch: Patch) -> None:
    clip = torch.nn.utils.clip_grad_norm_

    def each(parameters: object, clip_norm: float) -> Tensor:
        norms = [clip([parameter], clip_norm) for parameter in parameters]
        return torch.stack(norms).norm()

    patch.setattr(torch.nn.utils, "clip_grad_norm_", each)


def no_decay(patch: Patch) -> None:
    groups = module._parameter_groups
    patch.setattr(module, "_parameter_groups", lambda model, decay: groups(model, 0.0))


FAULTS = {
    "LayerNorm statistics in bf16": Fault(layer_norm_in_bf16, "precision, LayerNorm"),
    "softmax sums in bf16": Fault(softmax_in_bf16, "precision, softmax"),
    "tanh GELU": Fault(tanh_gelu, "precision, GELU"),
    "loss in bf16": Fault(loss_in_bf16, "precision, loss"),
    "resize in bf16 in the step only": Fault(resize_in_step(in_bf16), "precision, resize"),
    "nearest resize in the step only": Fault(resize_in_step(nearest), "precision, resize"),
    "moments kept in bf16": Fault(moments_in_bf16, "second step, second moments"),
    "weights packed at first inference after loading and kept": Fault(packed_and_kept, "infer, train, infer, batch 4"),
    "weights packed once for each batch size": Fault(packed_for_each_size_once, "infer, train, infer, batch 1"),
    "batch 1 answered from a cache": Fault(cached_batch_1(TorchBackend), "infer, train, infer, batch 1"),
    "6-bit operands": Fault(six_bit_operands, "precision, inference"),
    "TF32 in attention": Fault(tf32_in_attention, "infer, train, infer, batch 4", ("fp32",)),
    "clipped parameter by parameter": Fault(clipped_each, "second step, clip"),
    "no decay": Fault(no_decay, "second step, parameters"),
    "learning rate one step late": Fault(late_rate(TorchBackend), "second step, parameters"),
}


@pytest.mark.skipif(not ops.has_onednn(torch.float32), reason="this PyTorch has no oneDNN, which packs weights")
@pytest.mark.parametrize(("name", "precision"), cases(FAULTS))
def test_planted_fault_fails_the_check_meant_for_it(
    name: str, precision: str, tiny_spec: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    fault = FAULTS[name]
    fault.plant(monkeypatch)
    backend = TorchBackend(tiny_spec, "cpu", precision, "stock")
    check = check_named(fault.fails, backend, tiny_spec, precision)
    assert not check.passed, check
