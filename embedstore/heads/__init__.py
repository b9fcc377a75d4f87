"""Classifiers over features that are already computed. scikit-learn estimators; none knows a store."""
