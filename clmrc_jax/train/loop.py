"""The training loop: step, log, validate, save, stop and continue. It knows no paper.

A `Trainer` compiles its step once per batch shape and keeps it, so the rounds of CORA share
one compilation. `fit` can be killed at any moment: the same call continues from the newest
intact checkpoint, on the CPU with bit-identical losses, because the state, the input's place
and the random key (a function of seed and step) are all that a step depends on.

Files of one training, in `workdir/name`: `metrics.jsonl`, `checkpoints/<step>`, `best/<step>`
while it runs; `final/<step>` (parameters alone) and `finished.json` when it is done.
"""

import collections
import contextlib
import dataclasses
import json
import math
import os
import sys
import time
from collections.abc import Callable

import grain
import jax
import numpy as np
from etils import epath

from clmrc_jax import hosts, notice, sharding
from clmrc_jax.files import InputError, read_json, write_json
from clmrc_jax.progress import Meter
from clmrc_jax.train import checkpoints, goodput, metrics, optimizer, state, step


class TrainingDiverged(RuntimeError):
    """The loss became NaN or infinite."""


@dataclasses.dataclass(frozen=True)
class FitResult:
    """params: the best ones by `best_metric`, else the last; metrics: those of their step."""

    params: dict
    metrics: dict[str, float]


@dataclasses.dataclass(frozen=True)
class FitOptions:
    """The keyword arguments of `Trainer.fit`, described there."""

    steps: int
    seed: int
    workdir: str | os.PathLike
    name: str
    log_every: int = 50
    save_every: int = 500
    keep: int = 2
    validate: Callable[[dict, int], dict] | None = None
    validate_every: int = 0
    best_metric: tuple[str, str] | None = None
    flops_per_batch: float | None = None
    config: dict | None = None
    read_threads: int = 1
    tensorboard: bool = False
    profile: tuple[int, ...] = ()

    def __post_init__(self):
        goodput.check_window(self.profile)
        for field in ("steps", "log_every", "save_every", "read_threads"):
            if getattr(self, field) < 1:
                raise InputError(f"{self.name}: {field} is {getattr(self, field)}, must be >= 1")
        if self.best_metric and (
            self.validate is None or self.best_metric[1] not in ("min", "max")
        ):
            raise InputError(
                f"{self.name}: best_metric is (name, 'min' or 'max') and needs a validate "
                f"function; got {self.best_metric!r}"
            )


class Trainer:
    """One objective, one optimizer, one mesh, and the compiled step they make.

    loss_fn(params, batch, key) -> (loss, metrics): loss and metrics are float scalars over the
        *global* batch, batch a dict of global arrays, key this step's random key.
    accumulate: micro-batches per update. Loss, metrics and gradients of the micro-batches are
        averaged with weight `metrics["weight"]` (e.g. the number of target tokens; 1 when
        absent), which makes the update that of the whole batch; "weight" itself is summed.
    """

    def __init__(
        self,
        loss_fn: step.LossFn,
        optimizer_config: optimizer.OptimizerConfig,
        mesh: jax.sharding.Mesh,
        param_axes: sharding.ParamAxes,
        rules: sharding.Rules = sharding.DEFAULT_RULES,
        accumulate: int = 1,
    ):
        self.mesh, self.optimizer, self.accumulate = mesh, optimizer_config, accumulate
        self.rules, self._loss_fn, self._param_axes = rules, loss_fn, param_axes
        self._transform = optimizer.make_transform(optimizer_config)
        self._prepared, self.seen = {}, set()

    def fit(
        self, params: dict, dataset: grain.MapDataset, *, steps: int, seed: int, **options
    ) -> FitResult:
        """Trains until update `steps` is done, continuing what is in `workdir/name`.

        params: initial parameters (left intact), used only when there is nothing to continue.
        dataset: random-access batches, name -> [local rows, ...] numpy; batch i feeds update i.
        workdir, name: the training's folder.  log_every, save_every: in steps.
        keep: checkpoints that stay.  validate(params, step) -> metrics: called every
        `validate_every` steps (0: never) and after the last; the next update frees the params it
        was given.  best_metric: ("average_rank",
        "min"): the validation metric that selects the parameters returned.
        flops_per_batch: model FLOPs per update, for TFLOP/s and MFU.  config: JSON object
        that must be the same when continuing.  read_threads: threads that prepare batches.
        profile: (first, last) step of a `jax.profiler` trace, into `workdir/name/profile`; ()
        for none. Where the training ends before the window, a message says so.
        Raises InputError (foreign checkpoint, other configuration, data at an end),
        TrainingDiverged, notice.Preempted (with several processes, inside
        `hosts.share_failures`) when SIGTERM came and the step is saved.
        """
        run = FitOptions(steps=steps, seed=seed, **options)
        if len(dataset) < steps:
            raise InputError(f"{run.name}: {steps} steps, but only {len(dataset)} batches of data")
        return _Fit(self, run, params).run(params, dataset)

    def prepare(self, params):
        """(abstract state, start(params) -> state, jitted step), made once per kind of params."""
        kind = tuple((k, v.shape, v.dtype) for k, v in sharding.flatten_paths(params).items())
        if kind not in self._prepared:
            abstract = state.abstract_state(
                params, self._transform, self.mesh, self._param_axes, self.rules
            )
            start = state.make_start(self._transform, abstract)
            places = jax.tree.map(lambda leaf: leaf.sharding, abstract)
            outputs = (places, sharding.replicated(self.mesh))
            update = jax.jit(self._update, donate_argnums=0, out_shardings=outputs)
            self._prepared[kind] = abstract, start, update
        return self._prepared[kind]

    def _update(self, before, batch, key, learning_rate):
        """One update; `learning_rate` is a traced scalar, `key` the training's base key."""
        key = jax.random.fold_in(key, before.step)
        trained, frozen = optimizer.divide(self.optimizer, before.params)

        def loss_fn(trained, batch, key):
            return self._loss_fn(optimizer.unite(trained, frozen), batch, key)

        loss, values, gradients = step.gradients(
            loss_fn, trained, batch, key, self.accumulate, self.mesh
        )
        updates, opt_state = self._transform.update(gradients, before.opt_state, trained)
        trained = optimizer.apply_updates(trained, updates, learning_rate)
        params = optimizer.unite(trained, frozen)
        values = values | {"loss": loss, "grad_norm": optimizer.global_norm(gradients)}
        return state.TrainState(before.step + 1, params, opt_state), values


class _Fit:
    """One training in progress."""

    def __init__(self, trainer: Trainer, options: FitOptions, params):
        self.trainer, self.options = trainer, options
        self.abstract, self.start, self.step = trainer.prepare(params)
        self.folder = epath.Path(options.workdir) / options.name
        self.goodput = goodput.Goodput(self.folder, trainer.mesh.devices.flat)
        self.profile = goodput.Profile(options.profile, self.folder / "profile")
        made_by = {
            "optimizer": dataclasses.asdict(trainer.optimizer),
            "accumulate": trainer.accumulate,
            "steps": options.steps,
            "seed": options.seed,
            "best_metric": options.best_metric,
            **(options.config or {}),
        }
        self.config = json.loads(json.dumps(made_by))  # tuples become lists, as in the file
        self.best, self.last = None, {}
        self.metrics, self.validation = {}, {}
        # One step ahead keeps an accelerator busy. Two programs with collectives in flight can
        # deadlock on virtual CPU devices, and gain nothing there.
        self.ahead = 0 if trainer.mesh.devices.flat[0].platform == "cpu" else 1
        self.pending = collections.deque()

    def run(self, params, dataset) -> FitResult:
        if not (self.folder / "finished.json").exists():
            with notice.heeded(), contextlib.ExitStack() as self.protection:
                with contextlib.ExitStack() as self.closing:
                    self._open(dataset)
                    self._resume(params)
                    self._loop()
                self._finish()
        params, _ = self._params_in("final")
        return FitResult(params, read_json(self.folder / "finished.json")["metrics"])

    def _open(self, dataset):
        threads = grain.ReadOptions(
            num_threads=self.options.read_threads,
            prefetch_buffer_size=max(4, self.options.read_threads),
        )
        self.iterator = iter(dataset.to_iter_dataset(threads))
        self.closing.callback(self.iterator.close)
        self.closing.callback(self.profile.close)

    def _resume(self, params):
        self.saved = self._checkpoints("checkpoints", keep=self.options.keep)
        restored = checkpoints.restore_latest(self.saved, self.abstract, self.config)
        self.done = restored.step if restored else 0
        self.state = restored.state if restored else self.start(params)
        if restored:
            self.iterator.set_state(restored.data["iterator"])
            self.best = restored.data["best"]
            self.metrics, self.validation = restored.data["metrics"], restored.data["validation"]
        if self.options.best_metric:
            # What is newer than the state restored will be found again.
            self.best_saved = self._checkpoints("best", newest=self.done)
        self.good = self.done
        self.profile.expect(self.done, self.options.steps, self.options.name)
        self.goodput.resume(restored and restored.data.get("goodput"), self.done)
        self.goodput.record(self.done)
        self.writer = metrics.MetricWriter(
            self.folder / "metrics.jsonl", self.done, self.options.tensorboard
        )
        self.closing.callback(self.writer.close)
        devices = self.trainer.mesh.devices.flat
        self.slices = sharding.batch_slice(self.trainer.mesh)[1]
        self.timers = metrics.Timers(self.options.flops_per_batch, devices)

    def _checkpoints(self, name, **options):
        opened = checkpoints.open(self.folder / name, **options)
        self.closing.callback(checkpoints.close, opened)
        return opened

    def _loop(self):
        options, first = self.options, self.done
        self.goodput.switch("step")
        key = step.base_key(options.seed, self.trainer.mesh)
        with Meter(options.name, options.steps, start=first) as meter:
            for index in range(first, options.steps):
                self._advance(index, key)
                if index == first:
                    self._settle(0)
                    self.timers.first_step()
                    self.protection.enter_context(notice.saves_first())  # there is something
                self.profile.end_after(self.done, lambda: self._settle(0))
                last = self.done == options.steps
                line = self._line(last)
                started = time.perf_counter()
                improved = self._validation_due(last) and self._validate(line)
                if line:
                    self.writer.write(self.done, line | self.goodput.line(last))
                    self.goodput.record(self.done)
                if improved or (self.done % options.save_every == 0 and not last):
                    self._save()
                if hosts.must_stop():
                    self._save()
                    text = f"{options.name}: stopped by SIGTERM, saved step {self.done}; "
                    print(text + "the same command continues from there", file=sys.stderr)
                    raise notice.Preempted
                self.timers.pause(time.perf_counter() - started)
                meter.advance(note=f"loss {self.metrics['loss']:.4f}" if self.metrics else "")

    def _validation_due(self, last: bool) -> bool:
        every = self.options.validate_every
        return self.options.validate is not None and (last or every and self.done % every == 0)

    def _advance(self, index, key):
        started = time.perf_counter()
        with self.goodput.during("data_wait"):
            batch = next(self.iterator)
        waited = time.perf_counter() - started
        arrays = sharding.place_batch(self.trainer.mesh, batch)
        self._settle(self.ahead)
        rate = np.float32(optimizer.schedule(self.trainer.optimizer, index, self.options.steps))
        with (
            sharding.activate(self.trainer.mesh, self.trainer.rules),
            self.goodput.during(goodput.kind_of_step(self.step, batch, self.trainer.seen)),
            self.profile.step(index + 1),
        ):
            self.state, values = self.step(self.state, arrays, key, rate)
        self.done = index + 1
        self.pending.append((self.done, values, float(rate)))
        self.timers.batch(batch, waited, self.slices)

    def _settle(self, ahead: int):
        """Waits until at most `ahead` updates are unfinished; stops at the first bad loss."""
        while len(self.pending) > ahead:
            step, values, rate = self.pending.popleft()
            loss, norm = float(values["loss"]), float(values["grad_norm"])
            if not (math.isfinite(loss) and math.isfinite(norm)):
                good = f"step {self.good}" if self.good else "none yet"
                raise TrainingDiverged(
                    f"{self.options.name}: the loss is {loss} and the gradient norm {norm} at "
                    f"step {step} (last good checkpoint: {good}, in {self.folder}). Lower the "
                    f"learning rate (now {rate:.3g}), lengthen the warm-up, or look for bad "
                    f"input in batch {step - 1}"
                )
            self.last = {"step": step, "values": values, "rate": rate}

    def _line(self, last: bool) -> dict[str, float]:
        """What the log says of this step: nothing, or its metrics and the speed since the last."""
        due = last or self.done % self.options.log_every == 0 or self._validation_due(last)
        if not due:
            return {}
        self._settle(0)
        values = {k: float(v) for k, v in jax.device_get(self.last["values"]).items()}
        self.metrics = {"loss": values.pop("loss"), **values}
        return {**self.metrics, "learning_rate": self.last["rate"], **self.timers.window()}

    def _validate(self, line) -> bool:
        """Adds the validation metrics to `line`; saves the best parameters so far, and says so."""
        with self.goodput.during("evaluation"):
            values = self.options.validate(self.state.params, self.done)
        self.validation = {name: float(value) for name, value in values.items()}
        line |= {f"valid/{name}": value for name, value in self.validation.items()}
        if not self.options.best_metric:
            return False
        name, goal = self.options.best_metric
        if name not in self.validation:
            raise InputError(
                f"best_metric {name!r} is not among the validation metrics: {', '.join(values)}"
            )
        value = self.validation[name]
        sign = 1 if goal == "max" else -1
        if self.best and not sign * value > sign * self.best["value"]:
            return False
        self.best = {"step": self.done, "value": value, "metrics": self.validation}
        params = {"params": self.state.params}
        with self.goodput.during("checkpoint"):
            checkpoints.save(self.best_saved, self.done, params, {}, self.config)
        return True

    def _save(self):
        self._settle(0)
        self.writer.flush()
        with self.goodput.during("checkpoint"):
            data = {
                "iterator": self.iterator.get_state(),
                "best": self.best,
                "metrics": self.metrics,
                "validation": self.validation,
                "goodput": dict(self.goodput.seconds),
            }
            checkpoints.save(self.saved, self.done, self.state, data, self.config)
        self.good = self.done
        self.goodput.record(self.done)

    def _finish(self):
        """Saves the parameters to return, marks the training finished, frees the rest."""
        params, step = self.state.params, self.done
        values = {**self.metrics, **self.validation}
        if self.best:
            params, step = self._params_in("best")
            values = self.best["metrics"]
        with self.goodput.during("checkpoint"):
            final = checkpoints.open(self.folder / "final")
            checkpoints.save(final, step, {"params": params}, {}, self.config)
            checkpoints.close(final)
        marker = {"step": step, "metrics": values, "config": self.config}
        marker["goodput"] = self.goodput.line(last=True)
        if jax.process_index() == 0:
            write_json(self.folder / "finished.json", marker)
            self.goodput.forget()
            for name in ("checkpoints", "best"):
                (self.folder / name).rmtree(missing_ok=True)
        hosts.wait_for_all(f"{self.options.name} finished")

    def _params_in(self, name):
        """(params, step) of the newest checkpoint in `best` or `final`."""
        opened = checkpoints.open(self.folder / name)
        try:
            abstract = {"params": self.abstract.params}
            restored = checkpoints.restore_latest(opened, abstract, self.config)
        finally:
            checkpoints.close(opened)
        if restored is None:
            raise InputError(
                f"{self.folder / name} holds no parameters although the training got that far; "
                f"remove {self.folder} to start it again"
            )
        return restored.state["params"], restored.step
