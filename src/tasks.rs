//! Tasks with a name and an owner, and latches that parts hold until they are ready.

use std::future::Future;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::error;

/// A boxed future that may be sent between threads.
pub type BoxFuture<'a, T> = std::pin::Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Tasks that start and stop together. Clones share the group.
#[derive(Clone, Debug)]
pub struct TaskGroup {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    stop: watch::Sender<bool>,
    tasks: Mutex<Tasks>,
}

/// The tasks of a group that may still run, with their names.
#[derive(Debug)]
struct Tasks {
    handles: Vec<(&'static str, JoinHandle<()>)>,
    /// The number of handles at which finished ones are swept out.
    sweep_at: usize,
}

/// A group of fewer handles is not swept: clients come and go, and each leaves one.
const SWEEP_ABOVE: usize = 256;

impl Tasks {
    fn push(&mut self, name: &'static str, handle: JoinHandle<()>) {
        if self.handles.len() >= self.sweep_at {
            self.handles.retain(|(_, task)| !task.is_finished());
            // So late that sweeping costs each task a constant, however many run.
            self.sweep_at = SWEEP_ABOVE.max(2 * self.handles.len());
        }
        self.handles.push((name, handle));
    }
}

impl TaskGroup {
    /// An empty group.
    pub fn new() -> Self {
        let tasks = Tasks { handles: Vec::new(), sweep_at: SWEEP_ABOVE };
        Self { inner: Arc::new(Inner { stop: watch::Sender::new(false), tasks: tasks.into() }) }
    }

    /// Runs `future` as a task of the group on the current runtime.
    pub fn spawn(&self, name: &'static str, future: impl Future<Output = ()> + Send + 'static) {
        lock(&self.inner.tasks).push(name, spawn(name, future));
    }

    /// Runs `future` as a task of the group on `executor`.
    pub fn spawn_on(
        &self,
        executor: &Executor,
        name: &'static str,
        future: impl Future<Output = ()> + Send + 'static,
    ) {
        lock(&self.inner.tasks).push(name, executor.spawn(name, future));
    }

    /// A signal that fires when the group is told to stop.
    pub fn stop_signal(&self) -> Stop {
        Stop(self.inner.stop.subscribe())
    }

    /// Tells every task to stop; returns at once.
    pub fn stop(&self) {
        self.inner.stop.send_replace(true);
    }

    /// Tells every task to stop and waits for them, at most `grace`; the rest is aborted and named
    /// in the log.
    pub async fn stop_and_join(&self, grace: Duration) {
        self.stop();
        let tasks = std::mem::take(&mut lock(&self.inner.tasks).handles);
        let deadline = tokio::time::sleep(grace);
        tokio::pin!(deadline);
        for (name, mut task) in tasks {
            tokio::select! {
                biased;
                _ = &mut task => {}
                () = &mut deadline => {
                    if !task.is_finished() {
                        tracing::warn!(task = name, "task did not stop in time and was aborted");
                        task.abort();
                    }
                }
            }
        }
    }

    /// Aborts every task at once: a crash, as the simulator needs it.
    pub fn abort(&self) {
        self.stop();
        for (_, task) in std::mem::take(&mut lock(&self.inner.tasks).handles) {
            task.abort();
        }
    }
}

impl Default for TaskGroup {
    fn default() -> Self {
        Self::new()
    }
}

/// Fires once its [`TaskGroup`] is told to stop.
#[derive(Clone, Debug)]
pub struct Stop(watch::Receiver<bool>);

impl Stop {
    /// Waits until the group is told to stop, or is gone.
    pub async fn stopped(&mut self) {
        let _gone_counts_as_stopped = self.0.wait_for(|stopped| *stopped).await;
    }
}

/// Runs `future` as a named task of the current runtime.
///
/// A panic in it is logged with the task's name; with `panic = "abort"` it ends the process.
#[expect(clippy::disallowed_methods, reason = "this is the place that spawns")]
pub fn spawn(
    name: &'static str,
    future: impl Future<Output = ()> + Send + 'static,
) -> JoinHandle<()> {
    tokio::spawn(named(name, future))
}

async fn named(name: &'static str, future: impl Future<Output = ()>) {
    struct Named(&'static str);
    impl Drop for Named {
        fn drop(&mut self) {
            if std::thread::panicking() {
                error!(task = self.0, "task panicked");
            }
        }
    }
    let _named = Named(name);
    future.await;
}

/// Where a task runs.
#[derive(Clone, Debug)]
pub enum Executor {
    /// On the runtime of whoever spawns: the one runtime of a simulated node.
    Caller,
    /// On a thread's own runtime.
    Thread(tokio::runtime::Handle),
}

impl Executor {
    /// Runs `future` as a named task there.
    pub fn spawn(
        &self,
        name: &'static str,
        future: impl Future<Output = ()> + Send + 'static,
    ) -> JoinHandle<()> {
        match self {
            Self::Caller => spawn(name, future),
            Self::Thread(handle) => handle.spawn(named(name, future)),
        }
    }

    /// Runs `future` there and gives its output; `None` if the runtime is gone.
    pub async fn run<T: Send + 'static>(
        &self,
        name: &'static str,
        future: impl Future<Output = T> + Send + 'static,
    ) -> Option<T> {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        self.spawn(name, async move {
            // Whoever asked may have given up; then nobody wants the output.
            let _unheard = sender.send(future.await);
        });
        receiver.await.ok()
    }
}

/// A thread with a single-threaded runtime of its own; it ends when this is dropped.
#[derive(Debug)]
pub struct RuntimeThread {
    executor: Executor,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl RuntimeThread {
    /// Starts the thread.
    pub fn start(name: &str) -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let executor = Executor::Thread(runtime.handle().clone());
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            // An error says that the sender was dropped, which is a stop as well.
            let _either_is_a_stop = runtime.block_on(stopped);
            runtime.shutdown_background();
        })?;
        Ok(Self { executor, stop: Some(stop), thread: Some(thread) })
    }

    /// Where its tasks run.
    pub const fn executor(&self) -> &Executor {
        &self.executor
    }
}

impl Drop for RuntimeThread {
    fn drop(&mut self) {
        drop(self.stop.take());
        let own = self.thread.as_ref().map(|thread| thread.thread().id());
        if let Some(thread) = self.thread.take()
            && own != Some(std::thread::current().id())
        {
            // The thread's panic was logged where it happened.
            let _panicked = thread.join();
        }
    }
}

/// A condition that becomes true once and stays so; many may wait for it.
#[derive(Clone, Debug)]
pub struct Latch(Arc<watch::Sender<bool>>);

impl Latch {
    /// A closed latch.
    pub fn new() -> Self {
        Self(Arc::new(watch::Sender::new(false)))
    }

    /// Opens the latch for good.
    pub fn open(&self) {
        self.0.send_replace(true);
    }

    /// Whether it is open.
    pub fn is_open(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits until it is open.
    pub async fn opened(&self) {
        let mut receiver = self.0.subscribe();
        let _sender_lives_in_self = receiver.wait_for(|open| *open).await;
    }
}

impl Default for Latch {
    fn default() -> Self {
        Self::new()
    }
}

/// Locks a mutex; a panic of an earlier holder does not spread.
///
/// The process ends on a panic in a core task, so a poisoned lock is only ever seen in tests.
pub fn lock<T: ?Sized>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
