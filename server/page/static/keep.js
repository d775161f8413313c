// What was played is kept in this browser as it is played, so that a reload, a crash of the tab or of the server loses
// nothing. A record holds a saved session, and the frames played since it was saved.

const NAME = "genie", PLAYS = "plays", PICTURES = "pictures";
const MOST_PLAYS = 12, MOST_PICTURES = 24;
const SETTLED = 1500; // ms without a change until the session is saved anew
const ENTRIES = 120; // or frames since it was

const done = (request) =>
  new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });

export class Shelf {
  #base = null;

  async #store(name, mode) {
    this.#base ??= await new Promise((resolve, reject) => {
      const request = indexedDB.open(NAME, 1);
      request.onupgradeneeded = () => {
        request.result.createObjectStore(PLAYS);
        request.result.createObjectStore(PICTURES, { autoIncrement: true });
      };
      request.onsuccess = () => resolve(request.result);
      request.onerror = () => reject(request.error);
    });
    return this.#base.transaction(name, mode).objectStore(name);
  }

  async put(key, record) {
    await done((await this.#store(PLAYS, "readwrite")).put(record, key));
  }

  async plays() {
    const keys = await done((await this.#store(PLAYS, "readonly")).getAllKeys());
    const records = await done((await this.#store(PLAYS, "readonly")).getAll());
    return keys.map((key, i) => ({ key, ...records[i] })).filter((play) => play.saved).sort((a, b) => b.when - a.when);
  }

  async drop(key) {
    await done((await this.#store(PLAYS, "readwrite")).delete(key));
  }

  async tidy() {
    for (const { key } of (await this.plays()).slice(MOST_PLAYS)) await this.drop(key);
  }

  async pictures() {
    const keys = await done((await this.#store(PICTURES, "readonly")).getAllKeys());
    const blobs = await done((await this.#store(PICTURES, "readonly")).getAll());
    return keys.map((key, i) => ({ key, blob: blobs[i] })).reverse();
  }

  async addPicture(blob) {
    const same = (await this.pictures()).filter((old) => old.blob.size === blob.size);
    const bytes = new Uint8Array(await blob.arrayBuffer());
    for (const old of same) {
      const other = new Uint8Array(await old.blob.arrayBuffer());
      if (bytes.every((byte, i) => byte === other[i])) return;
    }
    await done((await this.#store(PICTURES, "readwrite")).add(blob));
    for (const { key } of (await this.pictures()).slice(MOST_PICTURES)) await this.dropPicture(key);
  }

  async dropPicture(key) {
    await done((await this.#store(PICTURES, "readwrite")).delete(key));
  }
}

// Keeps one game. tab: a name for this tab that outlives a reload.
export class Keeper {
  #timer = null;
  #changed = false; // more than frames came since the session was saved: a start, a bookmark, another sampler
  #saving = false;
  #journal = []; // frames since the session was saved: [depth before, action, steps, temperature]
  #of = ""; // the play that the journal belongs to
  #record = null;
  #key = "";
  #writing = Promise.resolve();
  failing = false; // what was played last could not be kept

  constructor(game, shelf, tab, address) {
    this.game = game;
    this.shelf = shelf;
    this.tab = tab;
    this.address = address; // of the session's file
    game.stepped = (depth, action) => this.#stepped(depth, action);
    game.changed = () => {
      this.#changed = true;
      this.#soon(100);
    };
    addEventListener("visibilitychange", () => document.hidden && this.#timer !== null && this.save());
    addEventListener("beforeunload", (event) => this.failing && game.state.frame?.last > 0 && event.preventDefault());
  }

  // What this tab played last, for a server that has forgotten it.
  async recall(hello) {
    try {
      const here = new Set(hello.worlds.filter((world) => world.state === "here").map((world) => world.name));
      return (await this.shelf.plays()).find((play) => play.tab === this.tab && here.has(play.world)) ?? null;
    } catch {
      return null; // this browser keeps nothing
    }
  }

  #stepped(depth, action) {
    const { steps, temperature } = this.game.state, key = this.#name();
    if (this.#of !== key) [this.#of, this.#journal] = [key, []];
    this.#journal.push([depth, action, steps, temperature]);
    if (this.#changed || this.#saving) return; // written with the save, which comes soon; alone they may not follow from what is kept
    if (this.#key === key) this.#write(this.#key, { ...this.#record, journal: [...this.#journal] });
    if (this.#journal.length >= ENTRIES) this.save();
    else this.#soon(SETTLED);
  }

  #name() {
    return `${this.tab} ${this.game.state.world?.name}`;
  }

  #soon(ms) {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.save(), ms);
  }

  #write(key, record) {
    this.#writing = this.#writing.then(() => this.shelf.put(key, record)).then(
      () => (this.failing = false),
      () => (this.failing = true),
    );
    return this.#writing;
  }

  async save() {
    clearTimeout(this.#timer);
    this.#timer = null;
    const { world, frame, bookmarks } = this.game.state;
    if (!world || !frame) return;
    if (this.#saving || this.game.resuming) return this.#soon(100); // one at a time, or an older session could be written last
    const key = this.#name(), held = this.#of === key ? this.#journal : [], changed = this.#changed;
    [this.#of, this.#journal] = [key, []];
    [this.#saving, this.#changed] = [true, false];
    try {
      const answer = await fetch(this.address());
      if (!answer.ok) throw new Error(answer.statusText);
      const saved = await answer.blob();
      const record = { tab: this.tab, world: world.name, title: world.title, depth: frame.depth, marks: bookmarks.length, when: Date.now(), saved, picture: frame.picture };
      [this.#record, this.#key] = [record, key];
      await this.#write(key, { ...record, journal: [...this.#journal] });
      await this.shelf.tidy();
    } catch {
      if (this.#of === key) this.#journal = [...held, ...this.#journal]; // the record of before, with these frames, still holds everything
      this.#changed ||= changed;
      if (this.#changed) this.#soon(SETTLED);
      else if (this.#key === key) this.#write(key, { ...this.#record, journal: [...this.#journal] });
    }
    this.#saving = false;
  }
}
