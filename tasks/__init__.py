"""How one step runs: thin Prefect tasks around one pure function each."""
