"""What happens, in order: Prefect flows without arithmetic."""
