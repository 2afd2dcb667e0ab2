"""PCB-Merging: balance how the experts' changes compete, inside a model and between models.

Source: Du et al., Parameter Competition Balancing for Model Merging, arXiv 2410.02396, section 3,
as its released code computes it. For expert i of n, over all d entries in scope:

    a_i = clip(|tau_i|) to its [c, 1 - c] order statistics;  C_i = sgn(tau_i) a_i
    u_i = minmax(a_i);  v_i = sgn(tau_i) u_i
    b_i = exp(n u_i^2) * inter_i
    S_i = minmax(clamp(b_i, from the (1 - r) order statistic of b_i))
    tau = sum_i w_i C_i S_i / max(sum_i S_i, 1e-12)

Variants differ in c and in inter_i:
    reference (A)  c = 1e-4  tanh(tau_i * sum_j tau_j)
    nlp       (B)  c = 1e-2  tanh(tau_i * sum_j tau_j)
    vision    (C)  c = 1e-2  tanh(tau_i * sum_j v_j)
    pairwise  (D)  c = 1e-2  sum_j tanh(v_i * v_j)

Where the released code gives NaN we differ: an expert equal to the base is left out of n, a
constant row has u = 0, a constant S is 1 at and above the threshold (0 where exact opposites
out-vote each other everywhere), and rows too short to clip are not clipped.
"""

from merging.declarations.knobs import LAMBDA, SCOPE, WEIGHT, Axis, Knob

AXIS = Axis(
    id="pcb",
    kind="consensus",
    title="PCB",
    summary="Weigh every parameter by how it competes within and between experts.",
    formula="sum_i w_i C_i S_i / sum_i S_i, S = rescaled top share of exp(n u^2) * agreement",
    paper="Du et al. 2024, PCB-Merging, section 3",
    url="https://arxiv.org/abs/2410.02396",
    words="Let them compete for every parameter: {pcb_density:.0%} of each take part.",
    knobs=(
        WEIGHT,
        LAMBDA,
        Knob(
            "pcb_density", "Competing share", 0.1,
            "Share of each expert's parameters that survives the competition.",
            low=0.001, high=1.0, step=0.001, unit="share of entries kept",
        ),
        Knob(
            "variant", "Variant", "pairwise", "How agreement between experts is scored.",
            choices=("pairwise", "reference", "nlp", "vision"),
        ),
        SCOPE,
    ),
)  # fmt: skip

CLIP = {"reference": 1e-4, "nlp": 1e-2, "vision": 1e-2, "pairwise": 1e-2}


def clip_ranks(count: int, clip: float) -> tuple[int, int]:
    """Ascending ranks of the clip bounds among `count` magnitudes; the ends if too few."""
    low, high = int(count * clip), int(count * (1 - clip) - 1)
    return (low, high) if high > low else (0, count - 1)


def threshold_rank(count: int, density: float) -> int:
    """Ascending rank of the score that maps to 0, at share `density` in (0, 1]."""
    return min(int(count * (1 - density)), count - 1)
