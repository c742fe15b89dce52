"""The local page: machines, scores, alarms with their evidence, enrolment and health, from the agent itself."""
