"""What an alert delivers: ranked candidates, a page, drafts of reports."""
