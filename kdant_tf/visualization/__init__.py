"""Pictures of what networks attend to, confuse and learn; this module has the names that can be asked for."""

# Kinds of pictures, in the order in which they are drawn.
PICTURES = (
    *("heat-maps", "grad-cam", "drift", "confusion", "per-class", "reliability", "earliness", "curves"),
    "features",
)
# Of features to two dimensions.
PROJECTIONS = ("pca", "tsne")
