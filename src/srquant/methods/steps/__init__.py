"""The steps that methods are made of: plan, observe, build, finish."""
