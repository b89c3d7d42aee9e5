"""The arithmetic that quantizers are made of: grids, rounding onto them, codes, integers, packing."""
