"""What a sky alert delivers: ranked candidates, a page, drafts of reports."""
