"""Pre-training: a generated corpus, a teacher and a student, and the loop that trains them. Needs torch."""
