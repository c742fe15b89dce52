"""The arithmetic of the embedding bench: ratios within pairs, and targets that cannot be met by accident."""

from typing import Any

import numpy as np
import pytest

from bench import embed_report, workloads
from bench.embed_report import Timed


def row(contender: str, **values: Any) -> dict[str, Any]:
    precision = contender.split()[-1] if contender.startswith("openvino") else "f32"
    ours = contender.startswith("openvino")
    return {"workload": "w", "contender": contender, "precision": precision, "ours": ours, **values}


def ours(contender: str, *, eager: float, passes: bool = True, **values: Any) -> dict[str, Any]:
    facts = {"front_end_share": 0.05, "batch_64_over_8x8": 0.99, "rss_mb": 200.0, "speedup_vs_onnxruntime": eager / 1.2}
    speed = {"windows_per_s": eager, "speedup_vs_torch_eager": eager, "quality_passes": passes}
    return row(contender, **(facts | speed | values))


def met(rows: list[dict[str, Any]], *, disturbed: bool = False) -> dict[str, bool | None]:
    eager = row("torch eager", windows_per_s=1.0, speedup_vs_torch_products=0.95)
    return {target["what"]: target["met"] for target in embed_report.targets([eager, *rows], disturbed=disturbed)}


def test_a_ratio_is_taken_within_pairs_so_that_a_disturbed_round_cancels() -> None:
    fast, slow = Timed((1.0, 10.0, 1.0)), Timed((2.0, 20.0, 2.0))
    assert embed_report.speedup(fast, slow) == 2.0
    assert embed_report.speedup(slow, fast) == 0.5


def test_pairs_of_different_number_are_refused() -> None:
    with pytest.raises(ValueError, match="zip"):
        embed_report.speedup(Timed((1.0, 1.0)), Timed((1.0,)))


def test_a_comparison_states_the_median_round_and_shares_within_rounds() -> None:
    timed = Timed((2.0, 4.0, 3.0), front_end_s=(0.1, 0.4, 0.3))
    found = embed_report.comparison(
        "n", timed, {"torch eager": Timed((4.0, 8.0, 9.0))}, windows=6, flops=30, rates=[20.0, 20.0, 10.0]
    )
    assert found["windows_per_s"] == 2.0
    assert found["share_of_matmul_rate"] == 0.75  # 15, 7.5 and 10 per s of 20, 20 and 10
    assert found["speedup_vs_torch_eager"] == 2.0
    assert found["front_end_share"] == pytest.approx(0.1)
    assert found["pairs"] == 3


def test_the_fastest_precision_counts_only_if_it_keeps_the_embeddings() -> None:
    rows = [ours("openvino f32", eager=1.3), ours("openvino int8", eager=7.0, passes=False)]
    found = met(rows)
    assert found["fastest (openvino f32) against torch eager"] is False
    rows[1]["quality_passes"] = True
    assert met(rows)["fastest (openvino int8) against torch eager"] is True


def test_a_precision_that_this_cpu_lacks_is_neither_met_nor_missed() -> None:
    absent = row("openvino bf16", absent="no bf16")
    assert met([ours("openvino f32", eager=1.3), absent])["bf16 against torch eager"] is None
    assert met([ours("openvino f32", eager=1.3), ours("openvino bf16", eager=3.4)])["bf16 against torch eager"] is False


@pytest.mark.parametrize(
    ("values", "what"),
    [
        ({"front_end_share": 0.11}, "share of the front-end (openvino f32)"),
        ({"batch_64_over_8x8": 1.01}, "64 channels against 8 x 8 channels (openvino f32)"),
        ({"rss_mb": 251.0}, "resident memory with the model, MB (openvino f32)"),
    ],
)
def test_each_limit_is_a_limit(values: dict[str, float], what: str) -> None:
    assert met([ours("openvino f32", eager=1.3)])[what] is True
    assert met([ours("openvino f32", eager=1.3, **values)])[what] is False


def test_an_eager_torch_that_wastes_time_is_named() -> None:
    rows = [row("torch eager", windows_per_s=1.0, speedup_vs_torch_products=0.5), ours("openvino f32", eager=1.3)]
    assert "MISSED          torch eager takes at most 1.1 times its products and STFT: 2 (at most 1.1)  w" in (
        embed_report.verdicts(embed_report.targets(rows, disturbed=False)).splitlines()
    )


def test_a_disturbed_run_decides_on_nothing_but_memory() -> None:
    found = met([ours("openvino f32", eager=9.0)], disturbed=True)
    assert [what for what, decided in found.items() if decided is not None] == [
        "resident memory with the model, MB (openvino f32)"
    ]
    assert None not in {
        decided for what, decided in met([ours("openvino f32", eager=9.0)]).items() if "bf16" not in what
    }


def test_the_table_holds_what_is_absent_with_its_reason() -> None:
    found = embed_report.table([ours("openvino f32", eager=1.3), row("openvino bf16", absent="no bf16 here")])
    assert "absent: no bf16 here" in found
    assert "1.30" in found


def test_workloads_are_the_same_in_every_process_and_cover_all_rates() -> None:
    again = workloads.mixed(window_s=0.5)
    for (a, rate_a), (b, rate_b) in zip(workloads.mixed(window_s=0.5).windows, again.windows, strict=True):
        assert rate_a == rate_b
        assert np.array_equal(a, b)
    assert {rate_hz for _, rate_hz in again.windows} == set(workloads.RATES_HZ)


def test_embeddings_go_back_to_their_windows() -> None:
    found = workloads.per_window(np.arange(12, dtype=np.float32).reshape(6, 2), [1, 2, 3])
    assert [part.tolist() for part in found] == [[0, 1], [2, 3, 4, 5], [6, 7, 8, 9, 10, 11]]
