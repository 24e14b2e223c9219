"""Ends of host names that exist, so that `icon@2x.png` is no mail address. Touches nothing."""

from __future__ import annotations

_COUNTRIES = (
    "ac ad ae af ag ai al am ao aq ar as at au aw ax az ba bb bd be bf bg bh bi bj bm bn bo br bs bt bv bw by bz ca cc "
    "cd cf cg ch ci ck cl cm cn co cr cu cv cw cx cy cz de dj dk dm do dz ec ee eg er es et eu fi fj fk fm fo fr ga gb "
    "gd ge gf gg gh gi gl gm gn gp gq gr gs gt gu gw gy hk hm hn hr ht hu id ie il im in io iq ir is it je jm jo jp ke "
    "kg kh ki km kn kp kr kw ky kz la lb lc li lk lr ls lt lu lv ly ma mc md me mg mh mk ml mm mn mo mp mq mr ms mt mu "
    "mv mw mx my mz na nc ne nf ng ni nl no np nr nu nz om pa pe pf pg ph pk pl pm pn pr ps pt pw py qa re ro rs ru rw "
    "sa sb sc sd se sg sh si sj sk sl sm sn so sr ss st su sv sx sy sz tc td tf tg th tj tk tl tm tn to tr tt tv tw tz "
    "ua ug uk us uy uz va vc ve vg vi vn vu wf ws ye yt za zm zw"
)
_GENERIC = (
    "com org net edu gov mil int info biz name pro aero coop museum mobi asia cat jobs tel travel post xxx arpa "
    "academy agency ai app art bank berlin best bio blog build business cafe care careers center chat church city "
    "cloud club codes community company computer consulting credit dance design dev digital education email energy "
    "engineering estate events exchange expert family fashion finance fit foundation fun fund games gmbh global "
    "gold group guru health help hospital host house institute international investments kitchen law legal life "
    "limited link live llc loan london ltd management market marketing media moe money moscow network news nyc one "
    "online page paris partners party photo photos pictures press productions properties pub quebec report rest "
    "review reviews rocks sale school science services sexy shop site social software solutions space store stream "
    "studio style support systems team tech technology today tokyo tools top tours town toys trade training "
    "university vegas ventures video vip wales wang watch website wien wiki win work works world xin xyz yoga zone"
)
TOP_LEVEL = frozenset((_COUNTRIES + " " + _GENERIC).split())
"""Country codes (ISO 3166, as delegated) and the generic top-level domains that people use."""

NOT_PERSONAL = (
    "example.com",
    "example.org",
    "example.net",
    "example.edu",
    "example.cn",
    "domain.com",
    "yourdomain.com",
)
"""Domains reserved for documentation (RFC 2606) or used like one; their subdomains too."""

CODE_HOSTS = ("github.com", "gitlab.com", "bitbucket.org", "gitee.com", "codeberg.org")
"""Where `git@` is everybody's account."""
