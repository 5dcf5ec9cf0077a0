// Follows what happens: an event has the server make the page again, and what is new takes the
// place of what was there. What came by mail is handled here as text only.
"use strict";

const EVENTS = {
    messageSent: "Handed over",
    messageDeliveryError: "Put off",
    messageFailed: "Failed",
    messageBounce: "Bounce",
    messageComplaint: "Complaint",
    deliveryReport: "Delivery report",
    autoReply: "Automatic reply",
    // It changes the page, and is no news to a person.
    messageClosed: null,
    bounceUnmatched: "Report that matches no mail",
};
// Events that come together are one change; and no page is made more often than this.
const PAUSE_MILLIS = 700;
// What becomes of a delivery to a webhook is no event: while one waits the page is made again.
const WAITS_MILLIS = 5000;

const live = document.getElementById("live");
const news = document.getElementById("news");
const state = document.getElementById("live-state");
let shown = live?.innerHTML;
let waiting = null;
let looking = null;
let stream = null;
let arrived = [];
let seen = document.getElementById("main").dataset.seen;

function localTimes(root) {
    const two = (number) => String(number).padStart(2, "0");
    for (const time of root.querySelectorAll("time")) {
        const at = new Date(time.dateTime);
        if (Number.isNaN(at.getTime())) continue;
        const day = [at.getFullYear(), two(at.getMonth() + 1), two(at.getDate())].join("-");
        const clock = [at.getHours(), at.getMinutes(), at.getSeconds()].map(two).join(":");
        time.title = time.dateTime;
        time.textContent = `${day} ${clock}`;
    }
}

function tell() {
    const last = arrived.at(-1);
    if (last === undefined) return;
    news.textContent = arrived.length > 1 ? `${last}, and ${arrived.length - 1} more` : last;
    arrived = [];
}

// Where a person is in what is replaced: what he has opened, and what has the focus.
function keep(change) {
    const open = [...live.querySelectorAll("details[open][data-key]")].map((one) => one.dataset.key);
    const known = new Set([...live.querySelectorAll("[data-key]")].map((one) => one.dataset.key));
    const focused = live.contains(document.activeElement) ? document.activeElement : null;
    const name = focused && (focused.getAttribute("href") ?? focused.getAttribute("formaction"));
    change();
    for (const one of live.querySelectorAll("[data-key]")) {
        if (one.tagName === "DETAILS") one.open = open.includes(one.dataset.key);
        else if (!known.has(one.dataset.key)) one.classList.add("new");
    }
    if (name) {
        const same = [...live.querySelectorAll("[href], [formaction]")];
        same.find((one) => [one.getAttribute("href"), one.getAttribute("formaction")].includes(name))
            ?.focus({ preventScroll: true });
    }
}

async function refresh() {
    waiting = null;
    look();
    const selection = document.getSelection();
    if (selection && !selection.isCollapsed && live.contains(selection.anchorNode)) return soon();
    let next;
    try {
        const answer = await fetch(location.href, { headers: { Accept: "text/html" } });
        const page = new DOMParser().parseFromString(await answer.text(), "text/html");
        next = page.getElementById("live");
        if (!next && answer.redirected) return location.reload();
    } catch {
        return;
    }
    if (next && next.innerHTML !== shown) {
        shown = next.innerHTML;
        localTimes(next);
        keep(() => live.replaceChildren(...next.childNodes));
    }
    tell();
}

function soon() {
    waiting ??= setTimeout(refresh, PAUSE_MILLIS);
}

function look() {
    clearTimeout(looking);
    looking = live.querySelector("[data-waits]") ? setTimeout(soon, WAITS_MILLIS) : null;
}

function follow() {
    // From where the page was made on, so that nothing in between is missed.
    stream = new EventSource(`/live?cursor=${encodeURIComponent(seen)}`);
    stream.onopen = () => { state.hidden = false; };
    stream.onerror = () => { state.hidden = true; };
    for (const [event, words] of Object.entries(EVENTS)) {
        stream.addEventListener(event, (told) => {
            seen = told.lastEventId;
            const recipient = JSON.parse(told.data).data?.recipient;
            if (words) arrived.push(recipient ? `${words}: ${recipient}` : words);
            soon();
        });
    }
}

localTimes(document);
const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
if (zone) document.getElementById("zone").textContent = zone;
if (live) {
    follow();
    look();
    // A page that nobody sees asks for nothing, and catches up when it is seen again.
    document.addEventListener("visibilitychange", () => {
        if (document.hidden) {
            stream?.close();
            stream = null;
            clearTimeout(looking);
            state.hidden = true;
        } else if (!stream) {
            follow();
            soon();
        }
    });
}
