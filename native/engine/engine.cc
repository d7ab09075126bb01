// The turn of the engine: drain commands, schedule, forward, emit; and the thread that takes it.
//
// step() and what it calls belong to the engine thread; submit, cancel, add_adapter and the reads
// go through command_queue, outbox and status_board, each with its own lock.
#include "engine/engine.h"

#include <algorithm>
#include <atomic>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <thread>
#include <utility>

#include "engine/admission.h"
#include "engine/command_queue.h"
#include "engine/outbox.h"
#include "engine/sequence_table.h"
#include "engine/status_board.h"
#include "engine/step_planner.h"

namespace lorax {

namespace {

void require(bool ok, const char* field, int32_t value, const char* allowed) {
  if (ok) return;
  throw Error("INVALID_OPTIONS",
              std::string(field) + " is " + std::to_string(value) + "; it must be " + allowed + ".",
              {{"field", field}, {"value", static_cast<double>(value)}});
}

int64_t microseconds_since(Clock::time_point begin) {
  return std::chrono::duration_cast<std::chrono::microseconds>(Clock::now() - begin).count();
}

}  // namespace

class Engine::Impl {
 public:
  Impl(std::unique_ptr<Model> model, EngineLimits limits, std::function<void()> notify);

  void start();
  void stop();
  bool step();
  int32_t add_adapter(const AdapterSpec& spec);

  const std::unique_ptr<Model> model_;
  const ModelLimits model_limits_;
  CommandQueue commands_;
  Outbox outbox_;
  StatusBoard board_;
  SequenceTable sequences_;  // engine thread

 private:
  void run();
  void dispose();

  bool drain_commands();
  void handle(SubmitCommand& command);
  void handle(CancelCommand& command);
  void handle(AddAdapterCommand& command);
  void handle(RemoveAdapterCommand& command);

  void apply(const Schedule& schedule);
  void refuse_overflow();
  void plan(const Schedule& schedule);
  void forward();
  void take_results();
  void accept(Sequence& sequence, const SampleResult& result);
  void emit(Clock::time_point begin);

  // Each writes the one terminal event and frees everything the sequence holds.
  void finish(Sequence& sequence, FinishReason reason);
  void fail(Sequence& sequence, Failure failure);
  void fail_all(const Failure& failure);
  void lose(const std::exception& error);

  const EngineLimits limits_;
  const std::function<void()> notify_;
  std::atomic<bool> is_lost_ = false;

  // Engine thread from here on.
  std::optional<Failure> lost_;  // what every later request is refused with
  EventWriter events_;
  EngineStats stats_;
  int64_t step_number_ = 0;

  // Of the step being made; buffers are reused.
  std::vector<Sequence*> scheduled_;      // by chunk
  std::vector<PlannedSequence> planned_;  // by chunk
  StepPlan plan_;
  std::vector<int32_t> sampled_;       // [logits rows] -> chunk
  std::vector<SampleResult> results_;  // [logits rows]
  EngineStats::Step step_;

  std::mutex stop_mutex_;  // start and stop against each other
  bool disposed_ = false;
  std::thread thread_;
};

Engine::Impl::Impl(std::unique_ptr<Model> model, EngineLimits limits, std::function<void()> notify)
    : model_(std::move(model)),
      model_limits_(model_->limits()),
      sequences_(*model_, {limits.max_batch_tokens,
                           max_running_sequences(limits.max_sequences, limits.max_batch_tokens),
                           model_limits_.block_tokens}),
      limits_(limits),
      notify_(std::move(notify)) {
  require(limits.max_batch_tokens >= 1, "maxBatchTokens", limits.max_batch_tokens, "1 or more");
  require(limits.max_queued >= 0, "maxQueued", limits.max_queued, "0 or more");
  require(limits.max_sequences >= 1, "maxSequences", limits.max_sequences, "1 or more");
  emit(Clock::now());
}

// ---- the turn ----

bool Engine::Impl::step() {
  if (disposed_) return false;
  const Clock::time_point begin = Clock::now();
  bool worked = false;
  scheduled_.clear();
  try {
    worked = drain_commands();
    if (!lost_ && sequences_.any() != nullptr) {
      worked = true;
      const Schedule schedule = sequences_.schedule();
      apply(schedule);
      refuse_overflow();
      if (!scheduled_.empty()) {
        plan(schedule);
        forward();
        take_results();
      }
#ifndef NDEBUG
      sequences_.check_invariants();
#endif
    }
  } catch (const std::exception& error) {
    lose(error);
  }
  emit(begin);
  return worked;
}

bool Engine::Impl::drain_commands() {
  std::vector<Command> commands = commands_.take_all();
  for (Command& command : commands) {
    std::visit([this](auto& known) { handle(known); }, command);
  }
  return !commands.empty();
}

void Engine::Impl::handle(SubmitCommand& command) {
  Request& request = command.request;
  const std::optional<int32_t> adapter_pages =
      request.adapter < 0 ? 0 : sequences_.adapters().num_pages(request.adapter);
  std::optional<Failure> refusal = lost_;
  if (!refusal && !adapter_pages) refusal = adapter_not_found(request.adapter);
  if (!refusal) refusal = refuse(request, model_limits_, *adapter_pages);
  if (refusal) {
    events_.failed(request.id, *std::move(refusal), 0);
    ++stats_.failed;
  } else {
    sequences_.add(std::move(request), command.submitted);
  }
}

void Engine::Impl::handle(CancelCommand& command) {
  Sequence* sequence = sequences_.find(command.id);
  if (sequence == nullptr) return;
  events_.aborted(command.id, sequence->num_outputs());
  ++stats_.aborted;
  sequences_.close(*sequence, step_number_);
}

void Engine::Impl::handle(AddAdapterCommand& command) {
  sequences_.adapters().add(command.handle, std::move(command.image));
}

void Engine::Impl::handle(RemoveAdapterCommand& command) {
  sequences_.adapters().remove(command.handle);
}

void Engine::Impl::apply(const Schedule& schedule) {
  if (schedule.pool_full >= 0) {
    finish(sequences_.running(schedule.pool_full), FinishReason::kPool);
  }
  scheduled_ = sequences_.apply(schedule, step_number_);
  for (Sequence* sequence : scheduled_) {
    if (sequence->started) continue;
    sequence->started = true;
    stats_.prompt_tokens += sequence->num_prompt;
    events_.started(sequence->id, microseconds_since(sequence->submitted), 0);
  }
}

// The queue is what waits after everyone who could start has started.
void Engine::Impl::refuse_overflow() {
  while (sequences_.num_waiting() > limits_.max_queued && !sequences_.newest_waiting()->started) {
    fail(*sequences_.newest_waiting(),
         queue_full(sequences_.num_waiting() - 1, sequences_.num_running(), limits_.max_queued));
  }
}

void Engine::Impl::plan(const Schedule& schedule) {
  planned_.clear();
  step_ = {};
  for (size_t i = 0; i < scheduled_.size(); ++i) {
    const Sequence& sequence = *scheduled_[i];
    PlannedSequence planned;
    planned.tokens = sequence.tokens;
    planned.first_position = sequence.num_computed;
    planned.num_rows = schedule.chunks[i].num_tokens;
    planned.pages = sequence.blocks.pages();
    planned.adapter_handle = sequence.adapter;
    if (sequence.adapter >= 0) planned.adapter = sequences_.adapters().resident(sequence.adapter);
    planned.samples = planned.first_position + planned.num_rows == sequence.num_tokens();
    if (planned.samples) planned.sample = sequence.sampler.row();
    planned_.push_back(planned);
    const bool decodes = planned.num_rows == 1 && planned.samples && sequence.num_outputs() > 0;
    (decodes ? step_.decode_tokens : step_.prefill_tokens) += planned.num_rows;
  }
  make_step_plan(++step_number_, model_limits_.block_tokens, planned_, &plan_, &sampled_);
  step_.adapters = static_cast<int32_t>(plan_.segments.size());
}

void Engine::Impl::forward() {
  results_.resize(sampled_.size());
  PagePool& pool = sequences_.pool();
  pool.submitted(step_number_);
  try {
    model_->submit(plan_);
    model_->collect(results_);
  } catch (...) {
    pool.completed(step_number_);
    throw;
  }
  pool.completed(step_number_);
  ++stats_.steps;
}

void Engine::Impl::take_results() {
  for (size_t i = 0; i < scheduled_.size(); ++i) {
    scheduled_[i]->num_computed += planned_[i].num_rows;
  }
  for (size_t i = 0; i < sampled_.size(); ++i) accept(*scheduled_[sampled_[i]], results_[i]);
}

void Engine::Impl::accept(Sequence& sequence, const SampleResult& result) {
  if (result.token < 0) {
    fail(sequence, no_token(sequence.adapter, sequence.num_outputs()));
    return;
  }
  const int32_t num_logprobs = sequence.sampler.num_logprobs();
  const auto num_top = static_cast<size_t>(std::max(num_logprobs, 0));
  if (result.token >= model_limits_.vocab_size || result.top_tokens.size() < num_top ||
      result.top_logprobs.size() < num_top) {
    throw std::logic_error("engine: the model returned a malformed sample");
  }
  sequence.tokens.push_back(result.token);
  sequence.sampler.append(result.token);
  events_.token(sequence.id, result, num_logprobs);
  ++stats_.output_tokens;
  if (sequence.sampler.is_stop_token(result.token)) {
    finish(sequence, FinishReason::kStopToken);
  } else if (sequence.num_outputs() == sequence.sampler.max_output_tokens()) {
    finish(sequence, FinishReason::kMaxOutputTokens);
  } else if (sequence.num_tokens() >= model_limits_.context_tokens) {
    finish(sequence, FinishReason::kContext);
  }
}

void Engine::Impl::emit(Clock::time_point begin) {
  const PagePool::Counts pages = sequences_.pool().counts();
  stats_.pages = {pages.total, pages.free, pages.kv, pages.adapter, pages.retiring};
  stats_.running = sequences_.num_running();
  stats_.waiting = sequences_.num_waiting();
  stats_.preemptions = sequences_.num_preemptions();
  stats_.adapter_loads = sequences_.adapters().num_loads();
  stats_.adapter_evictions = sequences_.adapters().num_evictions();
  std::optional<EngineStats::Step> computed;
  if (!scheduled_.empty()) {
    computed = step_;
    computed->us = static_cast<int32_t>(microseconds_since(begin));
  }
  board_.publish(stats_, computed, sequences_.adapters().take_changes());
  commands_.forget(events_.ended());
  if (outbox_.put(&events_) && notify_) notify_();
}

// ---- how sequences end ----

void Engine::Impl::finish(Sequence& sequence, FinishReason reason) {
  events_.finished(sequence.id, reason, sequence.num_outputs());
  ++stats_.finished;
  sequences_.close(sequence, step_number_);
}

void Engine::Impl::fail(Sequence& sequence, Failure failure) {
  events_.failed(sequence.id, std::move(failure), sequence.num_outputs());
  ++stats_.failed;
  sequences_.close(sequence, step_number_);
}

void Engine::Impl::fail_all(const Failure& failure) {
  while (Sequence* sequence = sequences_.any()) {
    try {
      fail(*sequence, failure);
    } catch (const std::logic_error&) {
      // The structures are broken, which may be why we are here: the event is written and close()
      // has forgotten the sequence; what it still holds goes with the engine.
    }
  }
}

void Engine::Impl::lose(const std::exception& error) {
  ErrorData data;
  if (const auto* known = dynamic_cast<const Error*>(&error)) {
    data = known->data();
    data["causeCode"] = known->code();
  }
  data["step"] = static_cast<double>(step_number_);
  data["cause"] = std::string(error.what());
  lost_ = Failure{"ENGINE_LOST",
                  "The engine failed at step " + std::to_string(step_number_) + ": " +
                      error.what() + ". It serves no more; create a new one.",
                  std::move(data)};
  is_lost_ = true;
  scheduled_.clear();
  fail_all(*lost_);
}

// ---- other threads ----

int32_t Engine::Impl::add_adapter(const AdapterSpec& spec) {
  if (commands_.closed()) throw Error("DISPOSED", "The engine was stopped.");
  if (is_lost_) throw Error("ENGINE_LOST", "The engine failed earlier; create a new one.");
  std::shared_ptr<const AdapterImage> image = model_->read_adapter(spec);
  if (image->num_pages >= model_limits_.num_pages) {
    throw adapter_too_large(image->num_pages, model_limits_);
  }
  const int32_t handle = board_.add_adapter(image->bytes);
  commands_.post(AddAdapterCommand{handle, std::move(image)});
  return handle;
}

void Engine::Impl::start() {
  const std::lock_guard lock(stop_mutex_);
  if (commands_.closed()) throw Error("DISPOSED", "The engine was stopped.");
  if (!thread_.joinable()) thread_ = std::thread([this] { run(); });
}

void Engine::Impl::run() {
  while (!commands_.closed()) {
    if (!step()) commands_.wait();
  }
  dispose();
}

void Engine::Impl::stop() {
  const std::lock_guard lock(stop_mutex_);
  commands_.close();
  if (thread_.joinable()) {
    thread_.join();
  } else {
    dispose();
  }
}

void Engine::Impl::dispose() {
  if (disposed_) return;
  const Failure disposed{"DISPOSED", "The engine was stopped.", {}};
  if (!lost_) lost_ = disposed;  // for submissions that no step has drained
  scheduled_.clear();
  drain_commands();
  fail_all(disposed);
  emit(Clock::now());
  disposed_ = true;
}

// ---- the public face ----

Engine::Engine(std::unique_ptr<Model> model, EngineLimits limits, std::function<void()> notify)
    : impl_(std::make_unique<Impl>(std::move(model), limits, std::move(notify))) {}

Engine::~Engine() { stop(); }

void Engine::start() { impl_->start(); }

bool Engine::step() { return impl_->step(); }

void Engine::submit(Request request) {
  impl_->commands_.post(SubmitCommand{std::move(request), Clock::now()});
}

void Engine::cancel(int32_t id) { impl_->commands_.post(CancelCommand{id}); }

int32_t Engine::add_adapter(const AdapterSpec& spec) { return impl_->add_adapter(spec); }

void Engine::remove_adapter(int32_t handle) {
  impl_->board_.remove_adapter(handle);
  impl_->commands_.post(RemoveAdapterCommand{handle});
}

std::vector<AdapterStatus> Engine::adapters() const { return impl_->board_.adapters(); }

StepEvents Engine::take_events() { return impl_->outbox_.take(); }

EngineStats Engine::stats() const { return impl_->board_.stats(); }

ModelLimits Engine::limits() const { return impl_->model_limits_; }

BackendInfo Engine::info() const { return impl_->model_->info(); }

void Engine::stop() { impl_->stop(); }

void Engine::check_invariants() const { impl_->sequences_.check_invariants(); }

}  // namespace lorax
