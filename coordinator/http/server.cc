#include "coordinator/http/server.h"

#include <thread>

#include "coordinator/http/session.h"

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/post.hpp>

#include "comm/base/log.h"

namespace chorale::coordinator::http {

namespace asio = boost::asio;
using asio::ip::tcp;
using BoostError = boost::system::error_code;

namespace {
constexpr std::chrono::milliseconds kAcceptRetry{100};  // after the process ran out of descriptors

tcp::endpoint resolve(asio::io_context& io, const std::string& host, int port) {
  BoostError error;
  tcp::resolver resolver(io);
  const auto found = resolver.resolve(host, std::to_string(port), tcp::resolver::passive, error);
  if (error || found.empty())
    fail(ErrorCode::kInvalidArgument, "--host {}: {}; give an address of this machine, or 0.0.0.0 for all", host,
         error.message());
  return found.begin()->endpoint();
}
}  // namespace

class HttpServer::Impl {
 public:
  explicit Impl(HttpOptions options)
      : shared_(std::move(options)),
        acceptor_(shared_.io),
        accept_retry_(shared_.io),
        work_(asio::make_work_guard(shared_.io)) {}
  ~Impl() { stop(); }

  void start() {
    const auto& options = shared_.options;
    const tcp::endpoint endpoint = resolve(shared_.io, options.host, options.port);
    BoostError error;
    acceptor_.open(endpoint.protocol(), error);
    if (!error) acceptor_.set_option(tcp::acceptor::reuse_address(true), error);
    if (!error) acceptor_.bind(endpoint, error);
    if (!error) acceptor_.listen(asio::socket_base::max_listen_connections, error);
    if (error)
      fail(ErrorCode::kSystem, "cannot listen on {}:{}: {}; choose another --port, or 0 for any free one", options.host,
           options.port, error.message());
    bound_ = acceptor_.local_endpoint();
    accept();
    thread_ = std::thread([this] { run_io(); });
  }

  void set_waiting_for(const std::string& what) { shared_.router.set_waiting_for(what); }

  void open(std::shared_ptr<const api::ApiContext> context, std::shared_ptr<api::JobService> jobs) {
    shared_.context = context;
    shared_.jobs = jobs;
    shared_.router.open(std::move(context), std::move(jobs));
  }

  tcp::endpoint bound() const { return bound_; }

  bool drain(Deadline deadline) {
    shared_.router.start_draining();
    std::unique_lock lock(shared_.drain_mutex);
    return shared_.drained.wait_until(lock, deadline.when(),
                                      [this] { return shared_.router.counters().open_requests == 0; });
  }

  void stop() {
    if (stopped_) return;
    stopped_ = true;
    shared_.router.start_draining();
    // First the pools, so that nothing starts any more; then the connections, so that nothing wakes the io thread
    // afterwards.
    for (asio::thread_pool* pool : {&shared_.short_bodies, &shared_.long_bodies}) {
      pool->stop();
      pool->join();
    }
    asio::post(shared_.io, [this] {
      BoostError ignored;
      acceptor_.close(ignored);
      accept_retry_.cancel();
      while (!shared_.sessions.empty()) {
        const auto session = *shared_.sessions.begin();
        session->abort();
      }
      work_.reset();
    });
    if (thread_.joinable())
      thread_.join();
    else
      shared_.io.run();  // never started
    shared_.router.close();
    shared_.context.reset();
    shared_.jobs.reset();
  }

 private:
  /// A handler that throws (out of memory, say) ends nothing but itself.
  void run_io() {
    for (;;) {
      try {
        shared_.io.run();
        return;
      } catch (const std::exception& error) {
        log_error("serving a connection: {}", error.what());
      }
    }
  }

  void accept() {
    acceptor_.async_accept([this](BoostError error, tcp::socket socket) {
      if (!acceptor_.is_open()) return;
      if (error) {
        log_warn("accepting a connection: {}", error.message());
        accept_retry_.expires_after(kAcceptRetry);
        accept_retry_.async_wait([this](BoostError cancelled) {
          if (!cancelled && acceptor_.is_open()) accept();
        });
        return;
      }
      const auto session = std::make_shared<Session>(shared_, std::move(socket));
      const bool full = shared_.sessions.size() >= static_cast<size_t>(shared_.options.max_connections);
      shared_.sessions.insert(session);
      if (full)
        session->refuse();
      else
        session->start();
      accept();
    });
  }

  Shared shared_;
  tcp::acceptor acceptor_;
  asio::steady_timer accept_retry_;
  asio::executor_work_guard<asio::io_context::executor_type> work_;
  tcp::endpoint bound_;
  std::thread thread_;
  bool stopped_ = false;
};

HttpServer::HttpServer(HttpOptions options) : impl_(std::make_unique<Impl>(std::move(options))) {}
HttpServer::~HttpServer() = default;

void HttpServer::set_waiting_for(const std::string& what) { impl_->set_waiting_for(what); }
void HttpServer::open(std::shared_ptr<const api::ApiContext> context, std::shared_ptr<api::JobService> jobs) {
  impl_->open(std::move(context), std::move(jobs));
}
void HttpServer::start() { impl_->start(); }
int HttpServer::port() const { return impl_->bound().port(); }
std::string HttpServer::url() const {
  const auto address = impl_->bound().address();
  return address.is_v6() ? fmt::format("http://[{}]:{}", address.to_string(), port())
                         : fmt::format("http://{}:{}", address.to_string(), port());
}
bool HttpServer::drain(Deadline deadline) { return impl_->drain(deadline); }
void HttpServer::stop() { impl_->stop(); }

}  // namespace chorale::coordinator::http
