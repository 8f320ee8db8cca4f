// Pictures: loaded ahead, and without the session's cookie; enlarged, moved and turned in their frame.

const STEP = 1.25;
const SCALE_MAX = 16;
const MARGIN_PX = 48; // so much of a picture always stays in its frame
const TAP_MS = 300;
const TAP_PX = 24;
const SAFE = /^(https?:|data:image\/)/i;

/**
 * Load a task's picture and decode it. Return `{image, isReady, isBroken, ended, isCut}`; `ended` fulfils when one of the
 * two is true, `isCut` with whether its file breaks off, where the browser tells. A text has no picture: null.
 */
export function loadPicture(task) {
  if (task.text !== undefined) return { image: null, isReady: true, isBroken: false, ended: Promise.resolve(), isCut: Promise.resolve(false) };
  const picture = { image: new Image(), isReady: false, isBroken: false, ended: null };
  const url = task.signed_url ?? task.data_url ?? "";
  picture.image.alt = "The picture to label";
  picture.image.draggable = false;
  if (SAFE.test(url)) setSource(picture.image, url);
  const decoded = SAFE.test(url) ? picture.image.decode() : Promise.reject(new Error("no such scheme"));
  picture.ended = decoded.then(() => { picture.isReady = true; }, () => { picture.isBroken = true; });
  picture.isCut = picture.ended.then(() => picture.isReady && isCut(picture.image));
  return picture;
}

/**
 * Return whether the file of a picture breaks off. Browsers show what there is of it, and say nothing; Chromium makes no
 * bitmap of it. The size is given for SVG files without one, of which there would be none either.
 */
async function isCut(image) {
  await new Promise((resolve) => { (globalThis.requestIdleCallback ?? setTimeout)(resolve); });
  try {
    (await createImageBitmap(image, { resizeWidth: 1, resizeHeight: 1 })).close();
    return false;
  } catch (error) {
    return error.name === "InvalidStateError";
  }
}

/**
 * Have an image load an address. Cookies know no ports, so a server on another port of this host would be sent the
 * session's, and could replace it; a request in the mode of CORS has none. Such a server has to allow that mode.
 */
export function setSource(image, url) {
  const { hostname, origin } = URL.canParse(url, location) ? new URL(url, location) : location; // then it loads nothing
  const isNeighbour = hostname === location.hostname && origin !== location.origin;
  image.crossOrigin = isNeighbour ? "anonymous" : null;
  image.referrerPolicy = "no-referrer";
  image.src = url;
}

/** A frame with one picture in it. Points are in CSS pixels from the middle of the frame. */
export class Frame {
  #frame;
  #image = null;
  #scale = 1;
  #turns = 0;
  #x = 0;
  #y = 0;
  #pointers = new Map(); // by id: where each is
  #lastTap = { at: 0, x: 0, y: 0 };

  constructor(frame) {
    this.#frame = frame;
    frame.addEventListener("wheel", (event) => this.#wheel(event), { passive: false });
    frame.addEventListener("pointerdown", (event) => this.#press(event));
    frame.addEventListener("pointermove", (event) => this.#move(event));
    for (const type of ["pointerup", "pointercancel"]) {
      frame.addEventListener(type, (event) => this.#pointers.delete(event.pointerId));
    }
    new ResizeObserver(() => this.do("fit")).observe(frame);
  }

  show(image) {
    this.#image = image;
    this.#turns = 0;
    this.#frame.replaceChildren(...(image ? [image] : []));
    this.do("fit");
  }

  /** Do what a button says: in, out, fit, full, other (full or fit), turn, left, right, up, down. */
  do(what) {
    if (!this.#image) return;
    const step = this.#frame.clientHeight / 8;
    const [x, y] = { left: [step, 0], right: [-step, 0], up: [0, step], down: [0, -step] }[what] ?? [0, 0];
    if (what === "in") this.#zoom(STEP);
    else if (what === "out") this.#zoom(1 / STEP);
    else if (x || y) this.#shift(x, y);
    else this.#reset(what);
  }

  #reset(what) {
    if (what === "turn") this.#turns = (this.#turns + 1) % 4;
    const isFitting = Math.abs(this.#scale - this.#fit()) < 1e-6;
    const isFull = what === "full" || (what === "other" && isFitting);
    this.#scale = isFull ? 1 / devicePixelRatio : this.#fit();
    this.#x = this.#y = 0;
    this.#draw();
  }

  /** The size as it is turned, at a scale of 1. */
  get #size() {
    const { naturalWidth, naturalHeight } = this.#image;
    const size = [naturalWidth || this.#frame.clientWidth, naturalHeight || this.#frame.clientHeight];
    return this.#turns % 2 ? size.reverse() : size;
  }

  #fit() {
    const [width, height] = this.#size;
    return Math.min(this.#frame.clientWidth / width, this.#frame.clientHeight / height) || 1;
  }

  /** Enlarge by a factor; what is at the point (x, y) stays there. */
  #zoom(factor, x = 0, y = 0) {
    const smallest = Math.min(this.#fit(), 1) / 2;
    const scale = Math.min(Math.max(this.#scale * factor, smallest), SCALE_MAX);
    const ratio = scale / this.#scale;
    this.#scale = scale;
    this.#x = x - (x - this.#x) * ratio;
    this.#y = y - (y - this.#y) * ratio;
    this.#draw();
  }

  #shift(x, y) {
    this.#x += x;
    this.#y += y;
    this.#draw();
  }

  #point(event) {
    const { left, top, width, height } = this.#frame.getBoundingClientRect();
    return { x: event.clientX - left - width / 2, y: event.clientY - top - height / 2 };
  }

  #wheel(event) {
    if (!this.#image) return;
    event.preventDefault();
    const { x, y } = this.#point(event);
    const lines = event.deltaMode === WheelEvent.DOM_DELTA_LINE ? 40 : 1;
    const turned = Math.min(Math.max(event.deltaY * lines, -200), 200);
    this.#zoom(Math.exp(-turned / (event.ctrlKey ? 100 : 450)), x, y);
  }

  #press(event) {
    if (!this.#image || event.button) return;
    this.#frame.setPointerCapture(event.pointerId);
    const point = this.#point(event);
    this.#pointers.set(event.pointerId, point);
    const { at, x, y } = this.#lastTap;
    const isDouble = event.timeStamp - at < TAP_MS && Math.hypot(point.x - x, point.y - y) < TAP_PX;
    this.#lastTap = isDouble ? { at: 0, x: 0, y: 0 } : { at: event.timeStamp, ...point };
    if (isDouble && this.#pointers.size === 1) this.#tapTwice(point);
  }

  /** Go to twice the size that fits, at the point; and back. */
  #tapTwice({ x, y }) {
    const isFitting = Math.abs(this.#scale - this.#fit()) < 1e-6;
    if (isFitting) this.#zoom(Math.max(2, 1 / devicePixelRatio / this.#scale), x, y);
    else this.do("fit");
  }

  #move(event) {
    const before = this.#pointers.get(event.pointerId);
    if (!before || !this.#image) return;
    const now = this.#point(event);
    const other = [...this.#pointers].find(([id]) => id !== event.pointerId)?.[1];
    this.#pointers.set(event.pointerId, now);
    if (other) this.#pinch(before, now, other);
    else this.#shift(now.x - before.x, now.y - before.y);
  }

  #pinch(before, now, other) {
    const span = (point) => Math.hypot(point.x - other.x, point.y - other.y) || 1;
    this.#x += (now.x - before.x) / 2;
    this.#y += (now.y - before.y) / 2;
    this.#zoom(span(now) / span(before), (now.x + other.x) / 2, (now.y + other.y) / 2);
  }

  #draw() {
    const [width, height] = this.#size;
    const limit = (across, frame) => Math.max((across * this.#scale + frame) / 2 - MARGIN_PX, 0);
    const within = (value, most) => Math.min(Math.max(value, -most), most);
    this.#x = within(this.#x, limit(width, this.#frame.clientWidth));
    this.#y = within(this.#y, limit(height, this.#frame.clientHeight));
    this.#image.style.transform =
      `translate(${this.#x}px, ${this.#y}px) rotate(${this.#turns * 90}deg) scale(${this.#scale}) translate(-50%, -50%)`;
  }
}
