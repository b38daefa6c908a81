//! The broker's log engine, watched: before it forgets anything, that is copied, and looked at for what must not be forgotten.

use broker::engine::{
    AppendError, Appended, Bounds, EngineError, Fence, Hold, Lease, LeaseRequest, LogEngine, Scope, StateEntry, StatePut,
    embedded::Embedded, tail::Tail,
};
use kit::{BoxFuture, Envelope, EventId, Position, Recorded, Timestamp};

use crate::losses::Witness;

/// The production engine, and who watches it. The broker sees no more of this than of any other engine.
pub(crate) struct Watched {
    engine: Embedded,
    witness: Witness,
}

impl Watched {
    /// Watches `engine`, from what a crash left of it on.
    pub(crate) async fn start(engine: Embedded, witness: Witness) -> Result<Self, EngineError> {
        witness.archive.copy(&engine).await?;
        Ok(Self { engine, witness })
    }
}

impl LogEngine for Watched {
    fn trim(&self, up_to: Position) -> BoxFuture<'_, Result<(), EngineError>> {
        Box::pin(async move {
            self.witness.archive.copy(&self.engine).await?;
            self.witness.see_trim(&self.engine, up_to).await?;
            self.engine.trim(up_to).await?;
            self.witness.archive.forget(up_to);
            Ok(())
        })
    }

    fn append(&self, events: Vec<Envelope>) -> BoxFuture<'_, Result<Vec<Appended>, AppendError>> {
        self.engine.append(events)
    }

    fn read_scope<'a>(&'a self, scope: Scope<'a>, after: Position, limit: usize) -> BoxFuture<'a, Result<Vec<Recorded>, EngineError>> {
        self.engine.read_scope(scope, after, limit)
    }

    fn read_one(&self, position: Position) -> BoxFuture<'_, Result<Option<Recorded>, EngineError>> {
        self.engine.read_one(position)
    }

    fn find<'a>(&'a self, source: &'a str, id: &'a EventId) -> BoxFuture<'a, Result<Option<Recorded>, EngineError>> {
        self.engine.find(source, id)
    }

    fn find_time(&self, at: Timestamp) -> BoxFuture<'_, Result<Position, EngineError>> {
        self.engine.find_time(at)
    }

    fn find_size(&self, bytes: u64) -> BoxFuture<'_, Result<Position, EngineError>> {
        self.engine.find_size(bytes)
    }

    fn time_after(&self, after: Position) -> BoxFuture<'_, Result<Option<Timestamp>, EngineError>> {
        self.engine.time_after(after)
    }

    fn bounds(&self) -> Bounds {
        self.engine.bounds()
    }

    fn tail(&self) -> Tail {
        self.engine.tail()
    }

    fn state_get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<StateEntry>, EngineError>> {
        self.engine.state_get(key)
    }

    fn state_list<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Vec<StateEntry>, EngineError>> {
        self.engine.state_list(prefix)
    }

    fn state_put_fenced(&self, fence: Option<Fence>, puts: Vec<StatePut>) -> BoxFuture<'_, Result<(), EngineError>> {
        self.engine.state_put_fenced(fence, puts)
    }

    fn lease(&self, request: LeaseRequest) -> BoxFuture<'_, Result<Lease, EngineError>> {
        self.engine.lease(request)
    }

    fn hold(&self) -> Hold {
        self.engine.hold()
    }
}
