"""One step of pre-training, and what a run keeps between steps."""

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from fisher_models.families import frontend_spec
from fisher_models.pretrain import masking, schedule, seeds
from fisher_models.pretrain.checkpoint import Parts
from fisher_models.pretrain.config import Settings
from fisher_models.pretrain.data import Batch
from fisher_models.pretrain.encoders import opened, untrained
from fisher_models.pretrain.objective import Sight, Student
from fisher_models.pretrain.ranks import Rank, computes_bf16
from fisher_models.pretrain.targets import Targets
from fisher_models.pretrain.teacher import follow, tau_at, teacher_of


class Trainer:
    """Student, teacher, targets and optimizer of one process."""

    def __init__(self, settings: Settings, rank: Rank) -> None:
        self.settings, self.rank = settings, rank
        sizes = settings.model.sizes()
        spec = frontend_spec(sizes)
        drawn = seeds.generator(settings.run.seed, "masks", counter=0)
        encoder = untrained(sizes, patch_std=settings.model.patch_init_std, generator=drawn)
        with torch.random.fork_rng(devices=[]):  # decoder and heads are drawn as torch draws them, from the run's seed
            torch.manual_seed(settings.run.seed)
            student = Student(
                encoder,
                sizes.embed_dim,
                patch=(spec.patch_frames, spec.patch_bins),
                decoder=settings.decoder,
                losses=settings.losses,
            )
        student = student.to(rank.device)
        teacher = teacher_of(student.encoder)
        targets = Targets(settings.targets, sizes.embed_dim).to(rank.device)
        optimizer = torch.optim.AdamW(
            schedule.groups(student, settings.optimizer),
            lr=0.0,
            betas=(settings.optimizer.beta1, settings.optimizer.beta2),
            fused=True,
        )
        self.parts = Parts(student, teacher, targets, optimizer)
        self._student: nn.Module = student
        if rank.world > 1:
            on_gpu = [rank.device.index] if rank.device.type == "cuda" else None
            self._student = DistributedDataParallel(student, device_ids=on_gpu, broadcast_buffers=False)

    def step(self, step: int, batch: Batch) -> Mapping[str, Tensor]:
        """Train on a batch as step `step` (0 is the first); the losses and what else was seen, on the device."""
        settings, parts = self.settings, self.parts
        rate = schedule.rate_at(step, settings.run.steps, settings.optimizer)
        for group in parts.optimizer.param_groups:
            group["lr"] = rate
        sight = self._sight(step, batch)
        with self._precision():
            with torch.no_grad():
                teacher = opened(parts.teacher)
                _, layers = teacher.encode(teacher.patches(batch.bands, batch.centres), batch.centres)
                target = parts.targets(layers)
            losses: dict[str, Tensor] = self._student(sight, target)
        parts.optimizer.zero_grad(set_to_none=True)
        losses["loss"].backward()
        norm = nn.utils.clip_grad_norm_(parts.student.parameters(), settings.optimizer.clip)
        parts.optimizer.step()
        follow(parts.teacher, parts.student.encoder, tau=self._tau(step))
        seen = {name: value.detach() for name, value in losses.items()}
        return {**seen, "position_share": target.position_share, "gradient": norm}

    def embed(self, bands: Tensor, centres: Tensor) -> Tensor:
        """(n, t, f), (n,) -> (n, d) of the teacher, in float32: what will be shipped."""
        with torch.no_grad():
            found: Tensor = self.parts.teacher(bands.to(self.rank.device), centres.to(self.rank.device))
        return found

    def state(self) -> dict[str, NDArray[np.float32]]:
        """The teacher's state dict by the published keys; rounded to float16 where the run says so."""
        narrow = self.settings.run.narrow
        out = {}
        for key, value in self.parts.teacher.state_dict().items():
            array = value.detach().float().cpu().numpy()
            out[key] = array.astype(np.float16).astype(np.float32) if narrow else array
        return out

    def _sight(self, step: int, batch: Batch) -> Sight:
        """The batch with its masks, drawn for this step and this process."""
        spec, n = self.settings.mask, len(batch.bands)
        count = (step + 1) * self.rank.world + self.rank.index  # 0 was the weights
        generator = seeds.generator(self.settings.run.seed, "masks", counter=count, device=self.rank.device)
        clones = masking.clones(n, most=spec.clones, cap=spec.max_cloned)
        rows, columns = opened(self.parts.teacher).grid(batch.bands.shape[1])
        kept = masking.kept(n * clones, (rows, columns), spec, generator)
        shape = (n * clones, rows * columns, self.settings.model.sizes().embed_dim)
        noise = torch.randn(shape, generator=generator, device=generator.device)
        return Sight(batch.bands, batch.centres, kept, noise, batch.crops)

    def _tau(self, step: int) -> float:
        spec = self.settings.teacher
        return tau_at(step, start=spec.start, end=spec.end, steps=round(spec.share * self.settings.run.steps))

    def _precision(self) -> torch.autocast:
        asked = self.settings.run.precision
        bf16 = asked == "bf16" or (asked == "auto" and computes_bf16(self.rank.device))
        return torch.autocast(self.rank.device.type, dtype=torch.bfloat16, enabled=bf16)
