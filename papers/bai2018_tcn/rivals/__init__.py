"""Networks of ours, which the paper does not have."""
