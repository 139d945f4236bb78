"""What several tests need: adapters of every form, dense oracles, full-size tables, files."""
