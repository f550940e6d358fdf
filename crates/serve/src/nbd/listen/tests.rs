use super::*;

fn loopback(last: u8, port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, last], port))
}

#[test]
fn all_addresses_have_one_port() {
    let sockets = bind(&[loopback(1, 0), loopback(2, 0)]).unwrap();
    let ports: Vec<u16> = sockets.iter().map(|socket| socket.local_addr().unwrap().port()).collect();
    assert_eq!(ports.len(), 2);
    assert_eq!(ports[0], ports[1]);
    // One of them is somebody else's: whoever connected there would not come here.
    let failed = bind(&[loopback(3, ports[0]), loopback(2, ports[0])]);
    assert_eq!(failed.unwrap_err().kind(), ErrorKind::AddrInUse);
}

#[test]
fn an_address_that_this_machine_has_not_is_no_obstacle_beside_others() {
    // Set aside for documentation: nobody has it.
    let absent = SocketAddr::from(([192, 0, 2, 1], 0));
    assert_eq!(bind(&[absent, loopback(1, 0), absent]).unwrap().len(), 1);
    assert!(bind(&[absent]).is_err());
}
