#include "coordinator/http/routes.h"

#include <algorithm>
#include <cctype>
#include <string_view>

#include <openssl/crypto.h>
#include <openssl/sha.h>
#include <nlohmann/json.hpp>

#include "comm/base/log.h"
#include "comm/base/version.h"

namespace chorale::coordinator::http {

using api::Json;

namespace {

constexpr int kRetryNotReadySeconds = 2;
constexpr std::string_view kModelPrefix = "/v1/models/";

std::string path_of(const std::string& target) { return target.substr(0, target.find_first_of("?#")); }

std::string sha256(std::string_view text) {
  std::string digest(SHA256_DIGEST_LENGTH, '\0');
  SHA256(reinterpret_cast<const unsigned char*>(text.data()), text.size(),
         reinterpret_cast<unsigned char*>(digest.data()));
  return digest;
}

/// A body is JSON whatever it is called by clients that name no type of their own (curl -d, urllib); other names are
/// refused.
bool is_json_type(const std::string& content_type) {
  std::string type = content_type.substr(0, content_type.find(';'));
  std::transform(type.begin(), type.end(), type.begin(), [](unsigned char c) { return std::tolower(c); });
  while (!type.empty() && type.back() == ' ') type.pop_back();
  return type.empty() || type == "application/json" || type == "application/x-www-form-urlencoded" ||
         type.ends_with("+json");
}

Reply parse_failure(const Failure& failure) { return error_reply(api::to_api_error(failure, api::FailedAt::kParse)); }

Reply draining_reply() {
  api::ApiError error = api::make_error(503, "the server is draining and takes no new requests", "draining");
  error.retry_after_s = 1;
  return error_reply(error);
}

Reply json_reply(const Json& json) {
  Reply reply;
  reply.body = api::to_text(json);
  return reply;
}

}  // namespace

struct Router::Route {
  enum class Needs { kWorld, kNothing };
  std::string_view path;
  std::string_view method;
  Routed (Router::*handler)(const Request&) const;
  Needs needs = Needs::kWorld;
};

const std::vector<Router::Route>& Router::routes() {
  static const std::vector<Route> list = {
      {"/v1/completions", "POST", &Router::completions},
      {"/v1/chat/completions", "POST", &Router::chat},
      {"/tokenize", "POST", &Router::tokenize},
      {"/detokenize", "POST", &Router::detokenize},
      {"/v1/models", "GET", &Router::models},
      {"/health", "GET", &Router::health},
      {"/version", "GET", &Router::version, Route::Needs::kNothing},
      {"/metrics", "GET", &Router::metrics},
  };
  return list;
}

const Router::Route* Router::find(const std::string& path) {
  static const Route one_model = {kModelPrefix, "GET", &Router::model};
  for (const Route& route : routes())
    if (route.path == path) return &route;
  return path.starts_with(kModelPrefix) && path.size() > kModelPrefix.size() ? &one_model : nullptr;
}

Reply error_reply(const api::ApiError& error) {
  Reply reply;
  reply.status = error.status;
  reply.body = api::error_body(error);
  if (error.retry_after_s > 0) reply.headers.emplace_back("Retry-After", std::to_string(error.retry_after_s));
  return reply;
}

Router::Router(const std::vector<std::string>& api_keys) : counters_(std::make_shared<HttpCounters>()) {
  for (const std::string& key : api_keys) key_digests_.push_back(sha256(key));
}

void Router::set_waiting_for(const std::string& what) {
  const std::lock_guard lock(waits_mutex_);
  waits_for_ = what;
}

void Router::open(std::shared_ptr<const api::ApiContext> context, std::shared_ptr<api::JobService> jobs) {
  context_ = std::move(context);
  jobs_ = std::move(jobs);
  is_open_ = true;
}

void Router::close() {
  is_open_ = false;
  context_.reset();
  jobs_.reset();
}

Reply Router::not_ready() const {
  const std::lock_guard lock(waits_mutex_);
  api::ApiError error = api::make_error(503, waits_for_, "not_ready");
  error.retry_after_s = kRetryNotReadySeconds;
  return error_reply(error);
}

HandledOn Router::handled_on(const Request& request) const {
  return request.method == "POST" ? HandledOn::kParseThread : HandledOn::kConnectionThread;
}

/// Digests have one length, so comparing them takes the same time whatever was sent.
bool Router::is_authorized(const Request& request) const {
  if (key_digests_.empty()) return true;
  std::string_view header = request.authorization;
  std::string scheme(header.substr(0, 7));
  std::transform(scheme.begin(), scheme.end(), scheme.begin(), [](unsigned char c) { return std::tolower(c); });
  if (scheme != "bearer ") return false;
  const std::string digest = sha256(header.substr(7));
  int matches = 0;
  for (const std::string& key : key_digests_)
    matches += CRYPTO_memcmp(key.data(), digest.data(), digest.size()) == 0 ? 1 : 0;
  return matches > 0;
}

Routed Router::route(const Request& request) const {
  try {
    return dispatch(request);
  } catch (const std::exception& error) {  // the session is one of the three places that catch
    log_error("request {}: {}", request.request_id, error.what());
    return error_reply(api::make_error(500, error.what()));
  }
}

Routed Router::dispatch(const Request& request) const {
  const std::string path = path_of(request.target);
  const Route* route = find(path);
  if (path.starts_with("/v1/") && !is_authorized(request)) {
    Reply reply = error_reply(api::make_error(
        401, "the API key is missing or wrong; send it as 'Authorization: Bearer KEY'", "invalid_api_key"));
    reply.headers.emplace_back("WWW-Authenticate", "Bearer");
    return reply;
  }
  if (route == nullptr)
    return error_reply(api::make_error(404, fmt::format("there is no {}", path.substr(0, 200)), "not_found"));
  const bool allowed = request.method == route->method || (route->method == "GET" && request.method == "HEAD");
  if (!allowed) {
    const std::string allow = route->method == "GET" ? "GET, HEAD" : std::string(route->method);
    Reply reply = error_reply(api::make_error(
        405, fmt::format("{} takes {}, not {}", path, allow, request.method.substr(0, 32)), "method_not_allowed"));
    reply.headers.emplace_back("Allow", allow);
    return reply;
  }
  if (route->method == "POST" && (!is_json_type(request.content_type) || !request.content_encoding.empty()))
    return error_reply(api::make_error(415, "the body must be plain 'application/json'", "unsupported_media_type"));
  if (route->needs == Route::Needs::kWorld && !is_open_) return not_ready();
  return (this->*route->handler)(request);
}

Routed Router::completions(const Request& request) const {
  if (draining_) return draining_reply();
  const auto body = api::parse_json(request.body);
  if (!body) return parse_failure(body.failure());
  auto parsed = api::parse_completion(*body, *context_);
  if (!parsed) return parse_failure(parsed.failure());
  return std::move(*parsed);
}

Routed Router::chat(const Request& request) const {
  if (draining_) return draining_reply();
  const auto body = api::parse_json(request.body);
  if (!body) return parse_failure(body.failure());
  auto parsed = api::parse_chat(*body, *context_);
  if (!parsed) return parse_failure(parsed.failure());
  return std::move(*parsed);
}

Routed Router::tokenize(const Request& request) const {
  const auto body = api::parse_json(request.body);
  if (!body) return parse_failure(body.failure());
  const auto parsed = api::parse_tokenize(*body, *context_);
  if (!parsed) return parse_failure(parsed.failure());
  Json json;
  json["count"] = parsed->ids.size();
  json["max_model_len"] = context_->model.max_model_len;
  json["tokens"] = parsed->ids;
  json["token_strs"] = nullptr;
  if (parsed->return_token_strs == api::Toggle::kYes) {
    Json texts = Json::array();
    for (const int32_t id : parsed->ids) texts.push_back(context_->text->token_text(id));
    json["token_strs"] = std::move(texts);
  }
  return json_reply(json);
}

Routed Router::detokenize(const Request& request) const {
  const auto body = api::parse_json(request.body);
  if (!body) return parse_failure(body.failure());
  const auto ids = api::parse_detokenize(*body, *context_);
  if (!ids) return parse_failure(ids.failure());
  Json json;
  json["prompt"] = context_->text->decode(*ids);
  return json_reply(json);
}

static Json model_json(const api::ModelCard& card, const std::string& name) {
  Json json;
  json["id"] = name;
  json["object"] = "model";
  json["created"] = card.created;
  json["owned_by"] = "chorale";
  json["root"] = card.root;
  json["parent"] = nullptr;
  json["max_model_len"] = card.max_model_len;
  json["permission"] = Json::array();
  return json;
}

Routed Router::models(const Request&) const {
  Json list = Json::array();
  for (const std::string& name : context_->model.served_names) list.push_back(model_json(context_->model, name));
  Json json;
  json["object"] = "list";
  json["data"] = std::move(list);
  return json_reply(json);
}

Routed Router::model(const Request& request) const {
  const std::string name = path_of(request.target).substr(kModelPrefix.size());
  const auto& names = context_->model.served_names;
  if (std::find(names.begin(), names.end(), name) == names.end())
    return error_reply(
        api::make_error(404, fmt::format("the model '{}' does not exist", name.substr(0, 200)), "model_not_found"));
  return json_reply(model_json(context_->model, name));
}

Routed Router::health(const Request&) const {
  const auto health = jobs_->health();
  if (!health || draining_) {
    api::ApiError error =
        api::make_error(503, health ? "the server is draining" : health.failure().message, "unhealthy");
    error.retry_after_s = 1;
    return error_reply(error);
  }
  Json json;
  json["status"] = "ok";
  json["detail"] = *health;
  return json_reply(json);
}

Routed Router::version(const Request&) const {
  Json json;
  json["version"] = kVersion;
  json["build_id"] = kBuildId;
  return json_reply(json);
}

Routed Router::metrics(const Request&) const {
  const auto& model = context_->model;
  Reply reply;
  reply.content_type = "text/plain; version=0.0.4; charset=utf-8";
  reply.body = metrics_text(jobs_->stats(), *counters_,
                            model.served_names.empty() ? model.root : model.served_names.front(), model.max_model_len);
  return reply;
}

}  // namespace chorale::coordinator::http
