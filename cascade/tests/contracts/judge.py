"""Holds values to schemas: {"draft", "components", "cases": [[schema, value], …]} on stdin, the faults of each case on stdout."""

import json
import sys

import jsonschema_rs

asked = json.load(sys.stdin)
validator = {"7": jsonschema_rs.Draft7Validator, "2020-12": jsonschema_rs.Draft202012Validator}[asked["draft"]]


def faults(schema, value):
    whole = {"components": asked["components"], "allOf": [schema]}
    return [f"{error.instance_path}: {error.message}" for error in validator(whole, validate_formats=True).iter_errors(value)]


json.dump([faults(schema, value) for schema, value in asked["cases"]], sys.stdout)
