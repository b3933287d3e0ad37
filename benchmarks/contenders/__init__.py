"""What people use today, as short programs: each takes FILE CHUNK_IDS URL and the token in `ACCESS_TOKEN`."""
