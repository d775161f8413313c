// The conversation with the server (server/page/protocol.py): every message has one answer, in order.

const SUBPROTOCOL = "genie-play.2";
export const TAKEN_OVER = 4001;

export class Connection {
  #socket;
  #waiting = []; // resolvers of answers to come, oldest first
  #why = "";

  // player: the id of an earlier connection to go on with; "" for a new one. onclose(why, code)
  constructor(player, onclose) {
    const address = new URL("ws", document.baseURI);
    address.protocol = address.protocol.replace("http", "ws");
    address.search = player ? new URLSearchParams({ player }) : "";
    this.#socket = new WebSocket(address, SUBPROTOCOL);
    this.#socket.binaryType = "arraybuffer";
    this.hello = this.#expect();
    this.#socket.onmessage = (event) => this.#answer(event.data);
    this.#socket.onclose = (event) => {
      const why = event.code === 1009 ? "the picture is too large for the server" : event.reason || this.#why;
      for (const { reject } of this.#waiting.splice(0)) reject(new Error(why || "the connection is closed"));
      onclose(why, event.code);
    };
  }

  // An object, or the bytes of a picture.
  send(message) {
    if (!this.open) return Promise.reject(new Error("the connection is closed"));
    this.#socket.send(message instanceof Blob ? message : JSON.stringify(message));
    return this.#expect();
  }

  get open() {
    return this.#socket.readyState === WebSocket.OPEN;
  }

  close() {
    this.#socket.onclose = null;
    this.#socket.close();
  }

  #expect() {
    return new Promise((resolve, reject) => this.#waiting.push({ resolve, reject }));
  }

  #answer(data) {
    const message = typeof data === "string" ? JSON.parse(data) : unpack(data);
    const { resolve, reject } = this.#waiting.shift();
    if (message.type !== "error") return resolve(message);
    this.#why = message.hint ? `${message.message} (${message.hint})` : message.message;
    reject(new Error(this.#why));
  }
}

function unpack(data) {
  const length = new DataView(data).getUint32(0, true);
  const head = JSON.parse(new TextDecoder().decode(new Uint8Array(data, 4, length)));
  head.picture = new Blob([new Uint8Array(data, 4 + length)], { type: "image/png" });
  return head;
}
