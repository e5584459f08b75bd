//! What a request says beside its body: path, parameters, header fields.

pub(crate) mod accept;
pub(crate) mod access_policy;
pub(crate) mod conditions;
pub(crate) mod nearest_route;
pub(crate) mod node_url;
pub(crate) mod params;
pub(crate) mod percent;
pub(crate) mod positions;
pub(crate) mod query;
pub(crate) mod route;
pub(crate) mod takes;
pub(crate) mod ttl;
pub(crate) mod values;
