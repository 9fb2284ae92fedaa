//! What a CustomResourceDefinition says of an object in a file. Patterns and all but the simplest rules
//! are left to the API server. Pure.

use crate::engine::rendering::shorten;
use serde_json::Value as Json;

/// The most bytes of a value that are quoted.
const SHOWN: usize = 100;

/// The first thing that is wrong with a value, beginning with the path of the field: unknown fields,
/// missing ones, other types, words and numbers out of bounds.
pub fn check(schema: &Json, value: &Json, path: &str) -> Result<(), String> {
    let wrong = |what: String| Err(format!("{path}: {what}"));
    let expected = schema["type"].as_str().unwrap_or_default();
    let fits = match expected {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        _ => true,
    };
    if !fits {
        let quote = if expected == "string" && !value.is_object() && !value.is_array() {
            ": put it in quotes"
        } else {
            ""
        };
        let value = shorten(&value.to_string(), SHOWN);
        return wrong(format!("must be of type {expected}, not {value}{quote}"));
    }
    if let Some(words) = schema["enum"].as_array()
        && !words.contains(value)
    {
        let words: Vec<_> = words.iter().map(ToString::to_string).collect();
        let value = shorten(&value.to_string(), SHOWN);
        return wrong(format!("must be one of {}, not {value}", words.join(", ")));
    }
    if let Some(number) = value.as_f64() {
        if let Some(least) = schema["minimum"].as_f64().filter(|least| number < *least) {
            return wrong(format!("must be at least {least}, not {value}"));
        }
        if let Some(most) = schema["maximum"].as_f64().filter(|most| number > *most) {
            return wrong(format!("must be at most {most}, not {value}"));
        }
    }
    let (size, least, most, unit) = match value {
        Json::String(text) => (text.chars().count(), "minLength", "maxLength", "characters"),
        Json::Array(items) => (items.len(), "minItems", "maxItems", "items"),
        Json::Object(fields) => (fields.len(), "minProperties", "maxProperties", "entries"),
        _ => (0, "", "", ""),
    };
    let size = u64::try_from(size).unwrap_or(u64::MAX);
    if let Some(least) = schema[least].as_u64().filter(|least| size < *least) {
        return wrong(format!("must have at least {least} {unit}, not {size}"));
    }
    if let Some(most) = schema[most].as_u64().filter(|most| size > *most) {
        return wrong(format!("must have at most {most} {unit}, not {size}"));
    }
    match value {
        Json::Object(_) => check_object(schema, value, path),
        Json::Array(items) => {
            for (at, item) in items.iter().enumerate() {
                check(&schema["items"], item, &format!("{path}[{at}]"))?;
                let twin = items.iter().take(at).any(|other| same(schema, item, other));
                if twin {
                    return Err(format!("{path}[{at}]: stands there twice"));
                }
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

fn check_object(schema: &Json, value: &Json, path: &str) -> Result<(), String> {
    for name in schema["required"].as_array().into_iter().flatten() {
        let name = name.as_str().unwrap_or_default();
        if value[name].is_null() {
            return Err(format!("{path}.{name}: is missing"));
        }
    }
    for (name, value) in value.as_object().into_iter().flatten() {
        let path = format!("{path}.{name}");
        let known = schema["properties"].get(name);
        match known.or(schema.get("additionalProperties")) {
            // As if it was left out.
            Some(_) if value.is_null() => {}
            Some(schema) => check(schema, value, &path)?,
            None if schema["properties"].is_object() => {
                return Err(format!("{path}: there is no such field"));
            }
            None => {}
        }
    }
    Ok(())
}

/// Whether two items of a list are one and the same to the API server.
fn same(schema: &Json, one: &Json, other: &Json) -> bool {
    match schema["x-kubernetes-list-type"].as_str() {
        Some("set") => one == other,
        Some("map") => {
            let keys = schema["x-kubernetes-list-map-keys"].as_array();
            let mut keys = keys.into_iter().flatten().filter_map(Json::as_str);
            keys.all(|key| one[key] == other[key])
        }
        _ => false,
    }
}

/// Why the API server would not let a value become another: for what cannot be changed or taken away,
/// the path of the field and what its rule says.
pub fn frozen(schema: &Json, was: &Json, is: &Json, path: &str) -> Option<String> {
    for rule in schema["x-kubernetes-validations"]
        .as_array()
        .into_iter()
        .flatten()
    {
        let text = rule["rule"].as_str().unwrap_or_default();
        let broken = match text.strip_prefix("!has(oldSelf.") {
            Some(rest) => {
                let field = rest.split(')').next().unwrap_or_default();
                let stays = text == format!("!has(oldSelf.{field}) || has(self.{field})");
                stays && !was[field].is_null() && is[field].is_null()
            }
            None => text == "self == oldSelf" && was != is,
        };
        if broken {
            let message = rule["message"].as_str().unwrap_or("it cannot be changed");
            return Some(format!("{path}: {message}"));
        }
    }
    let properties = schema["properties"].as_object().into_iter().flatten();
    properties
        .filter(|(name, _)| !was[name.as_str()].is_null() && !is[name.as_str()].is_null())
        .find_map(|(name, schema)| {
            let (was, is) = (&was[name.as_str()], &is[name.as_str()]);
            frozen(schema, was, is, &format!("{path}.{name}"))
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api;
    use serde_json::json;

    fn spec(kind: &str) -> Json {
        let crds = api::crds().into_iter();
        let crd = crds.map(|crd| serde_json::to_value(crd).unwrap());
        let mut crd = crd.filter(|crd| crd["spec"]["names"]["kind"] == kind);
        crd.next().unwrap()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]
            ["spec"]
            .clone()
    }

    fn set(change: impl FnOnce(&mut Json)) -> Result<(), String> {
        let mut set = json!({
            "tenantRef": {"name": "vsu"},
            "environments": ["prod"],
            "alarms": [{
                "name": "p95", "severity": "warning", "namespace": "App", "metricName": "m", "statistic": "p95",
                "period": 300, "evaluationPeriods": 3, "comparisonOperator": "GreaterThanThreshold",
                "threshold": 5000, "dimensions": {"Surface": "chat"}, "description": null
            }]
        });
        change(&mut set);
        check(&spec("AlarmSet"), &set, "spec")
    }

    #[test]
    fn what_is_wrong_is_named_by_its_path() {
        assert_eq!(set(|_| {}), Ok(()));
        let alarm = |field: &'static str, value: Json| {
            set(move |set| set["alarms"][0][field] = value).unwrap_err()
        };
        for (found, wrong) in [
            (
                alarm("treshold", json!(1)),
                "spec.alarms[0].treshold: there is no such field",
            ),
            (
                alarm("threshold", Json::Null),
                "spec.alarms[0].threshold: is missing",
            ),
            (
                alarm("threshold", json!("1")),
                "spec.alarms[0].threshold: must be of type number, not \"1\"",
            ),
            (
                alarm("name", json!(95)),
                "spec.alarms[0].name: must be of type string, not 95: put it in quotes",
            ),
            (
                alarm("severity", json!("bad")),
                "spec.alarms[0].severity: must be one of \"critical\", \"warning\", \"info\", not \"bad\"",
            ),
            (
                alarm("period", json!(5)),
                "spec.alarms[0].period: must be at least 10, not 5",
            ),
            (
                alarm("period", json!(1.5)),
                "spec.alarms[0].period: must be of type integer, not 1.5",
            ),
            (
                alarm("description", json!("x".repeat(513))),
                "spec.alarms[0].description: must have at most 512 characters, not 513",
            ),
            (
                alarm("dimensions", json!({"a": 1})),
                "spec.alarms[0].dimensions.a: must be of type string, not 1: put it in quotes",
            ),
            (
                set(|set| set["environments"] = json!(["a", "b", "a"])).unwrap_err(),
                "spec.environments[2]: stands there twice",
            ),
            (
                set(|set| {
                    let alarm = set["alarms"][0].clone();
                    set["alarms"].as_array_mut().unwrap().push(alarm);
                })
                .unwrap_err(),
                "spec.alarms[1]: stands there twice",
            ),
            (
                set(|set| set["alarms"] = json!([])).unwrap_err(),
                "spec.alarms: must have at least 1 items, not 0",
            ),
        ] {
            assert_eq!(found, wrong);
        }
    }

    #[test]
    fn what_cannot_be_changed_is_told() {
        let schema = spec("TenantObservability");
        let tenant = |account: &str| json!({"aws": {"accountId": account, "region": "us-east-2"}});
        let frozen = |was: &Json, is: &Json| frozen(&schema, was, is, "spec");
        assert_eq!(frozen(&tenant("1"), &tenant("1")), None);
        assert_eq!(frozen(&json!({}), &tenant("1")), None);
        let moved = frozen(&tenant("1"), &tenant("2")).unwrap();
        assert!(moved.starts_with("spec.aws.accountId: "), "{moved}");
        let gone = frozen(&tenant("1"), &json!({})).unwrap();
        assert!(gone.starts_with("spec: "), "{gone}");
    }
}
