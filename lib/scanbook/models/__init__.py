"""Networks: backbones and heads, their weights, the engines that run them, and the features that they give."""
