/**
 * A stack of things to undo, for `await using`. Unlike AsyncDisposableStack it also runs on Node 22, and it
 * always unwinds to the end: the first failure is thrown, further ones follow in an AggregateError.
 */
export class Scope implements AsyncDisposable {
  #undo: (() => unknown)[] = [];

  /** Registers an undo step; steps run in reverse order, each awaited. */
  defer(step: () => unknown): void {
    this.#undo.push(step);
  }

  /** Registers a resource and hands it back. */
  use<T extends AsyncDisposable | Disposable>(resource: T): T {
    this.defer(() => (Symbol.asyncDispose in resource ? resource[Symbol.asyncDispose]() : resource[Symbol.dispose]()));
    return resource;
  }

  /** Hands all undo steps to a new scope, for a function that succeeds and passes its resources on. */
  move(): Scope {
    const moved = new Scope();
    moved.#undo = this.#undo;
    this.#undo = [];
    return moved;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const errors: unknown[] = [];
    for (let step = this.#undo.pop(); step !== undefined; step = this.#undo.pop()) {
      try {
        await step();
      } catch (error) {
        errors.push(error);
      }
    }
    if (errors.length === 1) throw errors[0];
    if (errors.length > 1) throw new AggregateError(errors, 'several steps of cleaning up failed');
  }
}
