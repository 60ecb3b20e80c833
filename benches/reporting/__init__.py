"""From records to summaries, tables and plots."""
