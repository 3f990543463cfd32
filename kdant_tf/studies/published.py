"""What the paper prints, in percent, with where it stands.

Source: V. Tran, Y. Wang, M. Hoai, "Back to the Future: Knowledge Distillation for Human Action
Anticipation", 2019. Facts only: the method's numbers are in the paper's tables, nothing was measured here.
"""

from collections.abc import Mapping

SOURCE = "Tran, Wang and Hoai 2019"

# Table 1: JHMDB, top-1, averaged over the three splits. The paper has no student without a feature loss.
TABLE1: Mapping[str, Mapping[str, float]] = {
    "recognition": {"RGB": 75.3, "Flow": 77.8, "Both": 83.9},
    "teacher": {"RGB": 69.0, "Flow": 64.4, "Both": 74.9},
    "direct": {"RGB": 69.5, "Flow": 67.1, "Both": 75.5},
    "unidirectional": {"RGB": 70.0, "Flow": 67.3, "Both": 75.7},
    "bidirectional": {"RGB": 70.2, "Flow": 67.7, "Both": 75.9},
}
# Table 2: JHMDB, top-1 from the first 20 % of the video; with the references that the paper gives.
TABLE2: Mapping[str, float] = {
    "DP-SVM (Soomro et al. 2019)": 5.0,
    "S-SVM (Soomro et al. 2019)": 5.0,
    "Where/What (Soomro et al. 2016)": 10.0,
    "Context-fusion (Jain et al. 2016)": 28.0,
    "Within-class loss (Ma et al. 2016)": 33.0,
    "ELSTM (Sadegh Aliakbarian et al. 2017)": 55.0,
    "Future Dynamic Images (Rodriguez et al. 2018)": 61.0,
    "Feature Mapping RNN (Shi et al. 2018)": 73.4,
}
# Table 3: EPIC-KITCHENS-55, verbs; top-5 and the recognition network are in the text of §4.3.
TABLE3: Mapping[str, Mapping[str, float]] = {
    "recognition": {"top-1": 46.1},
    "tsn": {"top-1": 28.5, "top-5": 73.4},
    "i3d": {"top-1": 30.1, "top-5": 74.3},
    "distilled": {"top-1": 31.8, "top-5": 74.4},
}
# Figure 4: THUMOS14, what twice the labels gain. §4.4 has "1.4% and 2.8%" for the two networks and "larger
# for weaker features", so the larger one is taken for ResNet's. The accuracies are in the picture alone.
FIGURE4_GAINS: Mapping[str, float] = {"resnet": 2.8, "i3d": 1.4}


def fractions(percentages: Mapping[str, float]) -> dict[str, float]:
    """The same as shares of 1."""
    return {name: round(value / 100, 6) for name, value in percentages.items()}
