"""From knowledge to examples, splits and tokens."""
