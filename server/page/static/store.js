// What the page knows, in one place. Views watch the parts that they show.

export class Store {
  #watchers = [];

  constructor(state) {
    this.state = state;
  }

  // Changes some parts, then tells whoever watches one of them.
  set(changes) {
    const changed = Object.keys(changes).filter((key) => this.state[key] !== changes[key]);
    Object.assign(this.state, changes);
    for (const { keys, tell } of this.#watchers) if (keys.some((key) => changed.includes(key))) tell(this.state);
  }

  watch(keys, tell) {
    this.#watchers.push({ keys, tell });
  }
}
