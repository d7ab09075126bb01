// The registry is never destroyed: at exit, threads may still look at it.
#include "binding/live_sessions.h"

#include <cstdlib>
#include <map>
#include <mutex>
#include <vector>

#include "binding/engine_session.h"

namespace lorax {
namespace {

struct Registry {
  std::mutex mutex;
  std::map<EngineSession*, std::weak_ptr<EngineSession>> sessions;
};

Registry& registry() {
  static Registry* const instance = new Registry;
  return *instance;
}

void stop_all() {
  std::vector<std::shared_ptr<EngineSession>> sessions;
  {
    std::lock_guard lock(registry().mutex);
    for (const auto& [raw, weak] : registry().sessions) {
      if (auto session = weak.lock()) sessions.push_back(std::move(session));
    }
  }
  for (const auto& session : sessions) {
    session->abandon_javascript();
    session->request_stop();
  }
  for (const auto& session : sessions) session->shut_down();
}

}  // namespace

void register_session(const std::shared_ptr<EngineSession>& session) {
  static const bool once = std::atexit(stop_all) == 0;
  static_cast<void>(once);
  std::lock_guard lock(registry().mutex);
  registry().sessions[session.get()] = session;
}

void forget_session(EngineSession* session) {
  std::lock_guard lock(registry().mutex);
  registry().sessions.erase(session);
}

}  // namespace lorax
