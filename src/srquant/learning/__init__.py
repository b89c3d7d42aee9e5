"""Learning by steps of an optimiser: a quantized network from its float teacher, a float network from photographs."""
