"""Many connections with churn for a long time: does the server keep anything that it should not?"""
