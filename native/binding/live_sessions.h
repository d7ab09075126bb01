// The engines of this process that still run, so that exit() can stop them.
//
// process.exit() on the main thread runs no cleanup hook of the main environment: the C runtime
// would tear down the process under a running engine thread. Used by EngineSession alone.
#pragma once

#include <memory>

namespace lorax {

class EngineSession;

// Any thread. A session must be registered before it starts a thread.
void register_session(const std::shared_ptr<EngineSession>& session);
void forget_session(EngineSession* session);

}  // namespace lorax
