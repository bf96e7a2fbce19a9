"""What stars leave behind, peaks beyond what noise makes, and the verdict (sections 9, 12)."""
