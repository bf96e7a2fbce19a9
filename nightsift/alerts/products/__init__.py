"""What an alert delivers: ranked candidates, a page, a report for the Transient Name Server, a draft of a circular."""
