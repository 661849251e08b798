"""Studies: what is to be compared, the steps that it takes, what each depends on, costs and would take."""
