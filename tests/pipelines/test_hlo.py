"""Traffic read from HLO text: lines as the TPU compiler writes them, and programs compiled here."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from clmrc_jax import sharding
from clmrc_jax.pipelines import hlo

PROGRAM = """
HloModule jit_f, is_scheduled=true

%add (x: f32[], y: f32[]) -> f32[] {
  %x = f32[]{:T(128)} parameter(0)
  %y = f32[]{:T(128)} parameter(1)
  ROOT %sum = f32[]{:T(128)} add(%x, %y)
}

%all-reduce-scatter (input: f32[128,768]) -> f32[32,768] {
  %input = f32[128,768]{1,0:T(8,128)S(1)} parameter(0)
  %all-reduce.82 = f32[128,768]{1,0:T(8,128)} all-reduce(%input), channel_id=47, GROUPS, to_apply=%add
  %place = u32[] partition-id()
  ROOT %slice = f32[32,768]{1,0:T(8,128)} dynamic-slice(%all-reduce.82, %place), dynamic_slice_sizes={32,768}
}

%layer (param_0.8: bf16[10,1024,1024], param_1.8: s32[]) -> bf16[1024,1024] {
  %param_0.8 = bf16[10,1024,1024]{2,1,0:T(8,128)(2,1)} parameter(0)
  %param_1.8 = s32[]{:T(128)S(6)} parameter(1)
  %slice.9 = bf16[1,1024,1024]{2,1,0:T(8,128)(2,1)} dynamic-slice(%param_0.8, %param_1.8), dynamic_slice_sizes={1,1024,1024}
  ROOT %bitcast.6 = bf16[1024,1024]{1,0:T(8,128)(2,1)} bitcast(%slice.9)
}

%body (state: (s32[], bf16[10,1024,1024])) -> (s32[], bf16[10,1024,1024]) {
  %state = (s32[]{:T(128)}, bf16[10,1024,1024]{2,1,0:T(8,128)(2,1)}) parameter(0)
  %i = s32[]{:T(128)S(6)} get-tuple-element(%state), index=0
  %weights = bf16[10,1024,1024]{2,1,0:T(8,128)(2,1)} get-tuple-element(%state), index=1
  %one = bf16[1024,1024]{1,0:T(8,128)(2,1)S(1)} fusion(%weights, %i), kind=kLoop, calls=%layer
  %gathered = (bf16[64,1024]{1,0:T(8,128)(2,1)}, /*index=1*/bf16[1024,1024]{1,0:T(8,128)(2,1)S(1)}) all-gather-start(%one), channel_id=1, GROUPS, dimensions={0}
  %done = bf16[1024,1024]{1,0:T(8,128)(2,1)S(1)} all-gather-done(%gathered)
  ROOT %next = (s32[]{:T(128)}, bf16[10,1024,1024]{2,1,0:T(8,128)(2,1)}) tuple(%i, %weights)
}

%condition (state.1: (s32[], bf16[10,1024,1024])) -> pred[] {
  %limit = s32[]{:T(128)} constant(10)
  %state.1 = (s32[]{:T(128)}, bf16[10,1024,1024]{2,1,0:T(8,128)(2,1)}) parameter(0)
  %i.1 = s32[]{:T(128)} get-tuple-element(%state.1), index=0
  ROOT %less = pred[]{:T(512)} compare(%i.1, %limit), direction=LT
}

ENTRY %main (a: (s32[], bf16[10,1024,1024]), b: f32[128,768]) -> f32[32,768] {
  %a = (s32[]{:T(128)}, bf16[10,1024,1024]{2,1,0:T(8,128)(2,1)}) parameter(0)
  %b = f32[128,768]{1,0:T(8,128)} parameter(1)
  %loop = (s32[]{:T(128)}, bf16[10,1024,1024]{2,1,0:T(8,128)(2,1)}) while(%a), condition=%condition, body=%body
  %fetch = (f32[128,768]{1,0:T(8,128)S(1)}, f32[128,768]{1,0:T(8,128)}, u32[]{:S(2)}) copy-start(%b)
  %fetched = f32[128,768]{1,0:T(8,128)S(1)} copy-done(%fetch)
  ROOT %scattered = f32[32,768]{1,0:T(8,128)} fusion(%fetched), kind=kCustom, calls=%all-reduce-scatter
}
"""


@pytest.mark.parametrize(
    ("groups", "size"),
    [
        ("replica_groups={{0,1,2,3},{4,5,6,7},{8,9,10,11},{12,13,14,15}}", 4),
        ("replica_groups=[4,4]<=[16]", 4),
        ("replica_groups=[2,8]<=[4,4]T(1,0)", 8),
        ("replica_groups=mesh['axis_0'=4,'axis_1'=4] {'axis_1'}", 4),
        ("replica_groups=mesh['axis_0'=16] {'axis_0'}", 16),
        ("replica_groups=mesh['axis_0'=16] {'axis_0':(1)8}", 8),
        ("replica_groups={}", 16),
    ],
)
def test_program_as_the_tpu_compiler_writes_it_is_summed_up(groups, size):
    found = hlo.traffic(PROGRAM.replace("GROUPS", groups), devices=16)
    share = (size - 1) / size
    gathered, scattered = 1024 * 1024 * 2, 128 * 768 * 4
    assert found.collectives == {
        "all-gather": {
            "count": 10,
            "bytes": 10 * gathered,
            "sent": int(10 * gathered * share),
            "sent_in_part": int(10 * gathered * share) if size < 16 else 0,
        },
        "reduce-scatter": {
            "count": 1,
            "bytes": scattered,
            "sent": int(scattered * share),
            "sent_in_part": int(scattered * share) if size < 16 else 0,
        },
    }
    assert found.unknown_loops == 0


def test_hbm_traffic_counts_slices_and_leaves_out_on_chip_memory():
    found = hlo.traffic(PROGRAM.replace("GROUPS", "replica_groups={}"), devices=16)
    slices = 10 * 1024 * 1024 * 2  # of the weights, one per iteration, into on-chip memory
    halves = 10 * 64 * 1024 * 2  # the gather's operand, which its first half names in HBM
    copied, scattered = 128 * 768 * 4, 32 * 768 * 4
    assert found.hbm_bytes == slices + halves + copied + scattered


def test_loop_with_an_early_end_runs_as_often_as_told():
    early = PROGRAM.replace("compare(%i.1, %limit), direction=LT", "and(%i.1, %limit)")
    found = hlo.traffic(early.replace("GROUPS", "replica_groups={}"), devices=16, trips=19)
    assert found.unknown_loops == 1
    assert found.collectives["all-gather"]["count"] == 19


OVERLAPPED = """
%start (a: bf16[2,128]) -> (bf16[2,128], bf16[32,128]) {
  %a = bf16[2,128]{1,0:T(8,128)} parameter(0)
  %gather.1 = bf16[32,128]{1,0:T(8,128)} all-gather(%a), channel_id=7, replica_groups={}, dimensions={0}
  ROOT %begun = (bf16[2,128]{1,0:T(8,128)}, bf16[32,128]{1,0:T(8,128)}) custom-call(%gather.1), custom_call_target="AsyncCollectiveStart"
}

%layer (x: f32[8,128], b: bf16[2,128], c: bf16[32,128]) -> (f32[8,128], bf16[2,128], bf16[32,128]) {
  %x = f32[8,128]{1,0:T(8,128)} parameter(0)
  %b = bf16[2,128]{1,0:T(8,128)} parameter(1)
  %c = bf16[32,128]{1,0:T(8,128)} parameter(2)
  %gather.2 = bf16[32,128]{1,0:T(8,128)} all-gather(%b), channel_id=7, replica_groups={}, dimensions={0}
  %y = f32[8,128]{1,0:T(8,128)} tanh(%x)
  ROOT %all = (f32[8,128]{1,0:T(8,128)}, bf16[2,128]{1,0:T(8,128)}, bf16[32,128]{1,0:T(8,128)}) tuple(%y, %b, %c)
}

ENTRY %main (p: bf16[2,128], x: f32[8,128]) -> f32[8,128] {
  %p = bf16[2,128]{1,0:T(8,128)} parameter(0)
  %x = f32[8,128]{1,0:T(8,128)} parameter(1)
  %s = (bf16[2,128]{1,0:T(8,128)}, bf16[32,128]{1,0:T(8,128)}) fusion(%p), kind=kCustom, calls=%start
  %s0 = bf16[2,128]{1,0:T(8,128)} get-tuple-element(%s), index=0
  %s1 = bf16[32,128]{1,0:T(8,128)} get-tuple-element(%s), index=1
  %l = (f32[8,128]{1,0:T(8,128)}, bf16[2,128]{1,0:T(8,128)}, bf16[32,128]{1,0:T(8,128)}) fusion(%x, %s0, %s1), kind=kLoop, calls=%layer
  ROOT %z = f32[8,128]{1,0:T(8,128)} get-tuple-element(%l), index=0
}
"""


def test_collective_that_runs_behind_other_work_counts_once():
    found = hlo.traffic(OVERLAPPED, devices=16)
    size = 32 * 128 * 2
    assert found.collectives == {
        "all-gather": {"count": 1, "bytes": size, "sent": size * 15 // 16, "sent_in_part": 0}
    }
    layer = 2 * 8 * 128 * 4  # read and written; what is handed on costs nothing
    assert found.hbm_bytes == layer + size + 2 * 128 * 2  # and the results of the start


def test_two_collectives_of_one_channel_are_two():
    lines = """
ENTRY %main (s: f32[4,20], r: s32[4,20]) -> (f32[4,80], s32[4,80]) {
  %s = f32[4,20]{1,0:T(4,128)} parameter(0)
  %r = s32[4,20]{1,0:T(4,128)} parameter(1)
  %a = f32[4,80]{1,0:T(4,128)} all-gather(%s), channel_id=1, replica_groups={}, dimensions={1}
  %b = s32[4,80]{1,0:T(4,128)} all-gather(%r), channel_id=1, replica_groups={}, dimensions={1}
  ROOT %t = (f32[4,80]{1,0:T(4,128)}, s32[4,80]{1,0:T(4,128)}) tuple(%a, %b)
}
"""
    found = hlo.traffic(lines, devices=4).collectives["all-gather"]
    assert (found["count"], found["bytes"]) == (2, 2 * 4 * 80 * 4)


def test_psum_in_a_scan_of_a_compiled_program_counts_every_iteration():
    mesh = sharding.make_mesh()

    def body(total, x):
        return total + jax.lax.psum(x, "data"), None

    def local(x):
        return jax.lax.scan(body, jnp.zeros(x.shape[1:]), x)[0]

    mapped = jax.shard_map(
        local, mesh=mesh, in_specs=P(None, "data"), out_specs=P(), check_vma=False
    )
    place = NamedSharding(mesh, P(None, "data"))
    x = jax.ShapeDtypeStruct((5, 8 * 16, 32), jnp.float32, sharding=place)
    text = jax.jit(mapped).lower(x).compile().as_text()
    found = hlo.traffic(text, devices=8).collectives
    size = 5 * 16 * 32 * 4
    assert found == {
        "all-reduce": {"count": 5, "bytes": size, "sent": 2 * size * 7 // 8, "sent_in_part": 0}
    }


def test_text_that_is_cut_short_is_an_error():
    with pytest.raises(ValueError, match="no bracket closes"):
        hlo.parse("ENTRY %f (x: f32[2]) -> f32[2] {\n  %y = f32[2]{0} add(%x, %x\n}\n")
