"""What methods are made of: plan, observe, build, finish."""
