// The engine behind the API: forwards each call. Made by the serve command.
#pragma once

#include <memory>

#include "coordinator/api/job_service.h"
#include "coordinator/engine.h"

namespace chorale::coordinator::api {

class EngineJobService : public JobService {
 public:
  explicit EngineJobService(std::shared_ptr<Engine> engine) : engine_(std::move(engine)) {}
  Result<JobId> submit(JobRequest request, std::shared_ptr<JobSink> sink) override {
    return engine_->submit(std::move(request), std::move(sink));
  }
  void cancel(JobId id) override { engine_->cancel(id); }
  void wake() override { engine_->wake(); }
  Result<std::string> health() const override { return engine_->health(); }
  EngineStats stats() const override { return engine_->stats(); }

 private:
  std::shared_ptr<Engine> engine_;
};

}  // namespace chorale::coordinator::api
